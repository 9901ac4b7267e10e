"""RESULTS.md: what was measured, and under it the commands of each row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gpu
import measured
import rows
from picture import draw
from records import KINDS, Record, Records, load, machines
from rows import Row
from thawnet.core.files import write_text
from trials import ROOT

HEAD = """# Results

Written by `make bench` and `make bench-gpu` from the files under results/, which hold every single
figure; `make bench ROW=NAME` does one row again. Clocks start with the process. A ratio is taken
between runs next to each other; the table gives the median, the least and the most of them.
"""

PICTURE = """![accuracy against wall time](accuracy.png)

Accuracy on validation images; of main.py and the rivals on test images, as the reference's author
did. Pale: the other seeds. On a GPU the wait for a step to compile is the flat part.
"""


def write(folder: Path) -> None:
    """Write RESULTS.md and accuracy.png from the files under results/ in a folder."""
    found = load(folder / "results")
    drawn = draw(folder / "accuracy.png", found["cpu"], found["gpu"])
    sections = [
        _section(kind, row, found[kind][row.name])
        for kind, known in (("cpu", rows.ROWS), ("gpu", gpu.ROWS))
        for row in known
        if row.name in found[kind]
    ]
    picture = [PICTURE] if drawn else []
    write_text(folder / "RESULTS.md", "\n".join([HEAD, *picture, tables(found), *sections]))


def tables(found: Records, kinds: Sequence[str] = KINDS) -> str:
    """Return the tables of the kinds of machine that rows were measured on."""
    lines = {"cpu": measured.on_cpu, "gpu": measured.on_gpu}
    return "\n".join(
        f"## {machines(found[kind])}\n\n"
        + "".join(
            f"| {' | '.join(cells)} |\n"
            for cells in (("what", "measured"), ("---", "---"), *lines[kind](found[kind]))
        )
        for kind in kinds
        if found[kind]
    )


def _section(kind: str, row: Row, record: Record) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in record["versions"].items())
    commands = "".join(f"    {command}\n" for command in record["commands"])
    changed = "" if record["source"] else ", with changes that are not committed"
    title = row.name if kind == "cpu" else f"{row.name}, GPU"
    return (
        f"## {title}\n\n{row.what[0].upper()}{row.what[1:]}. "
        f"{record['date']}, commit {record['commit'] or 'unknown'}{changed}; "
        f"{machines({'': record})}; {versions}. "
        f"All figures: results/{kind}/{row.name}.json\n\n{commands}"
    )


if __name__ == "__main__":
    write(ROOT / "benchmarks")  # after files under results/ came from another machine
