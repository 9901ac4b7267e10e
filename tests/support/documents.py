"""The repository's own documents."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def read_document(path: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def only_block(path: str, language: str) -> str:
    """Return the one code block in a language of a Markdown file."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", read_document(path), re.DOTALL)
    return found
