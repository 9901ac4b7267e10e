"""What holds many images holds little memory: names and hashes are arrays."""

from __future__ import annotations

import pathlib
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from thawnet.data.names import Names
from thawnet.data.parallel import AHEAD, in_order
from thawnet.data.sources.open import open_source


def test_names_are_kept_as_they_are() -> None:
    words = ["a", "", "köttur/猫 1.jpg", "bad\udcff.jpg"]
    names = Names(words)
    assert list(names) == words
    assert names[-1] == words[-1]
    assert list(names[1:3]) == words[1:3]
    with pytest.raises(IndexError):
        names[4]


def test_listing_grows_by_less_than_300_bytes_an_image(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "many" / label).mkdir(parents=True)
        for number in range(1500):
            (tmp_path / "many" / label / f"{number:05d}.jpg").write_bytes(b"%d" % number)
    open_source(str(tmp_path / "many")).open_part("train")  # what loads once is loaded
    tracemalloc.start()
    items = open_source(str(tmp_path / "many")).open_part("train")
    # Python's table of interned names, to which pathlib adds, doubles when all tests fill it.
    interned = tracemalloc.Filter(False, pathlib.__file__)
    snapshot = tracemalloc.take_snapshot().filter_traces((interned,))
    tracemalloc.stop()
    assert len(items) == 3000
    assert sum(trace.size for trace in snapshot.traces) / len(items) < 300


def test_results_come_in_order_and_no_more_than_a_window_is_under_way() -> None:
    taken = 0

    def inputs() -> Iterator[int]:
        nonlocal taken
        while taken < 200:
            taken += 1
            yield taken

    def slow_first(value: int) -> int:
        time.sleep(0.05 if value == 1 else 0)
        return value

    got = []
    for value in in_order(slow_first, inputs(), 2):
        got.append(value)
        assert taken - value < 2 * AHEAD
    assert got == list(range(1, 201))


def test_error_in_a_thread_arrives_and_ends_the_threads() -> None:
    def fail(value: int) -> int:
        raise ValueError(value)

    before = threading.active_count()
    with pytest.raises(ValueError, match="7"):
        list(in_order(fail, [7, 8, 9], 2))
    assert threading.active_count() == before
