"""Tables of text on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from .text import printable

FIRST = 22  # at least so wide, so that the second columns of blocks stand below each other


def aligned(
    rows: Sequence[tuple[str, ...]], numbers: bool = False, first: int = FIRST
) -> list[str]:
    """Pad the columns of one block to equal width on a terminal.

    numbers: what stands in all columns but the first, so that it ends below each other. first: the
    least width of the first column.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max(widths[0], first)

    def padded(column: int, cell: str) -> str:
        space = " " * (widths[column] - cell_len(cell))
        return space + cell if numbers and column else cell + space

    return ["  ".join(map(padded, range(len(row)), row)).rstrip() for row in cells]
