"""What lies in the cache."""

from __future__ import annotations

import json
from pathlib import Path

from thawnet.core.files import cache_folder


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path there."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def noted(kind: str) -> int:
    """Return how many pieces the note of the one unfinished entry of a kind counts."""
    for path in (cache_folder() / kind).glob(".*.part/.note-0.json"):
        note = json.loads(path.read_text())
        return int(note["images"] if isinstance(note, dict) else note[0])
    return 0
