"""What rows measured, kept as a file for each, and where and with what it was measured.

benchmarks/results/KIND/ROW.json holds a row, KIND being cpu or gpu; RESULTS.md and the picture are
made from these files alone, so that any row can be done again alone.
"""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thawnet.core.files import write_json
from thawnet.core.memory import available_cores
from thawnet.training.machine import describe, version
from trials import ROOT

KINDS = ("cpu", "gpu")
PACKAGES = ("torch", "timm", "onnxruntime", "tensorflow", "keras", "numpy")

Record = dict[str, Any]
Records = dict[str, dict[str, Record]]


def git(*words: str) -> str | None:
    """Return what git says about the checkout, None if there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def source(folder: str = "src") -> str | None:
    """Name a folder's content, None if it holds what is not committed or git does not know."""
    changed = git("status", "--porcelain", "--", folder)
    return git("rev-parse", f"HEAD:{folder}") if changed == "" else None


def circumstances(depends: str) -> Record:
    """Return what a row that begins now depends on, its source folder among it."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "--short=12", "HEAD"),
        "source": source(depends),
        "machine": {**describe(), "cores": available_cores()},
        "versions": {name: found for name, found in versions.items() if found},
    }


def keep(folder: Path, kind: str, row: str, record: Record) -> None:
    """Write a row's file, whole or not at all."""
    write_json(folder / kind / f"{row}.json", record)


def load(folder: Path) -> Records:
    """Return every row that was kept, by kind and name."""
    return {
        kind: {path.stem: json.loads(path.read_text()) for path in (folder / kind).glob("*.json")}
        for kind in KINDS
    }


class Finished:
    """Which rows this checkout has done, and from which source; a clone begins without any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}

    def holds(self, row: str, folder: str) -> bool:
        """Whether a row was done with a folder as it is now."""
        now = source(folder)
        return now is not None and self.rows.get(row) == now

    def add(self, row: str, content: str | None) -> None:
        """Note a row that is done, from a source of this name; None: one without a name."""
        self.rows.pop(row, None)
        if content is not None:
            self.rows[row] = content
        write_json(self.path, self.rows)


def machines(found: Mapping[str, Record]) -> str:
    """Name the machine of some rows; more than one if they were measured on several."""
    names = []
    for record in found.values():
        machine = record["machine"]
        names.append(machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}")
    return " and ".join(sorted(set(names)))
