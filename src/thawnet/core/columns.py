"""Tables of text on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from .text import printable

FIRST = 22  # minimum width, so that the second columns of several blocks line up


def aligned(
    rows: Sequence[tuple[str, ...]], numbers: bool = False, first: int = FIRST
) -> list[str]:
    """Return the rows of one block as lines with aligned columns.

    numbers: right-align all columns but the first. first: minimum width of the first column.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max(widths[0], first)

    def padded(column: int, cell: str) -> str:
        space = " " * (widths[column] - cell_len(cell))
        return space + cell if numbers and column else cell + space

    return ["  ".join(map(padded, range(len(row)), row)).rstrip() for row in cells]
