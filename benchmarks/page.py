"""RESULTS.md and its picture, made from the files under results/.

python benchmarks/page.py  # after copying results/ from another machine
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from figures import Rows, lines
from picture import draw
from rows import KINDS
from runs import ROOT
from thawnet.core.files import write_text

HEAD = """# Results

Written by `make bench` and `make bench-gpu` from the files under results/, which hold every single
figure; `make bench ROW=NAME` does one row again. Clocks start with the process. A ratio is taken
between runs next to each other; the table gives the median, the least and the most of them.
"""

PICTURE = """![accuracy against wall time](accuracy.png)

Accuracy on validation images; of main.py and the rivals on test images, as the reference's author
did. Pale: the other seeds. On a GPU the wait for a step to compile is the flat part.
"""

Records = Mapping[str, dict[str, Any]]


def write(folder: Path) -> None:
    """Write RESULTS.md and accuracy.png from the files under results/ in a folder."""
    parts, tables, sections, panels = [HEAD], [], [], []
    for kind in KINDS:
        records = load(folder, kind)
        if records:
            rows = measured(records)
            panels.append((kind, machines(records), rows))
            tables.append(table(kind, records))
            sections += [
                section(kind, row.name, row.title, records[row.name])
                for row in KINDS[kind]
                if row.name in records
            ]
    if draw(folder / "accuracy.png", panels):
        parts.append(PICTURE)
    write_text(folder / "RESULTS.md", "\n".join([*parts, "\n".join(tables), *sections]))


def load(folder: Path, kind: str) -> Records:
    """Return the records of the rows of a kind, by row name."""
    files = (folder / "results" / kind).glob("*.json")
    return {path.stem: json.loads(path.read_text()) for path in files}


def measured(records: Records) -> Rows:
    """Return the measurements of each row."""
    return Rows({name: record["figures"] for name, record in records.items()})


def table(kind: str, records: Records) -> str:
    """Return the heading and the table of a kind of machine."""
    cells = (("what", "measured"), ("---", "---"), *lines(kind, measured(records)))
    body = "".join(f"| {' | '.join(line)} |\n" for line in cells)
    return f"## {machines(records)}\n\n{body}"


def section(kind: str, name: str, title: str, record: Mapping[str, Any]) -> str:
    """Describe where, when and with which commands a row was measured."""
    versions = ", ".join(f"{package} {value}" for package, value in record["versions"].items())
    commands = "".join(f"    {command}\n" for command in record["commands"])
    return (
        f"## {name}{'' if kind == 'cpu' else ', GPU'}\n\n{title[0].upper()}{title[1:]}. "
        f"{record['date']}, commit {record['commit'] or 'unknown'}; "
        f"{machines({name: record})}; {versions}. "
        f"All figures: results/{kind}/{name}.json\n\n{commands}"
    )


def machines(records: Records) -> str:
    """Return the name of the machine, or machines, that rows were measured on."""
    names = set()
    for record in records.values():
        machine = record["machine"]
        names.add(machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}")
    return " and ".join(sorted(names))


if __name__ == "__main__":
    write(ROOT / "benchmarks")
