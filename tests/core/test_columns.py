"""Columns on a terminal."""

from __future__ import annotations

from rich.cells import cell_len

from thawnet.core.columns import aligned


def test_columns_start_below_each_other_and_numbers_end_so() -> None:
    rows = [("Kürbis", "1", "x"), ("南瓜", "1,000", "yy")]
    first, second = aligned(rows)
    assert first == "Kürbis" + " " * 18 + "1      x"
    assert second == "南瓜" + " " * 20 + "1,000  yy"
    first, second = aligned(rows, numbers=True)
    assert first == "Kürbis" + " " * 22 + "1   x"
    assert cell_len(first) == cell_len(second)
