"""The table says what was measured, and has no line for what was not."""

from __future__ import annotations

from typing import Any

import measured
from measured import Line, shown
from support.benchmark_rows import cpu_rows, record, trial


def value(lines: list[Line], start: str) -> str:
    (found,) = [told for what, told in lines if what.startswith(start)]
    return found


def test_a_spread_is_told_around_the_median() -> None:
    assert shown([1.0, 2.5, 3.0], "{:.1f}") == "2.5 (1.0 to 3.0, 3 runs)"
    assert shown([2.5], "{:.1f} s") == "2.5 s"


def test_runs_that_never_got_there_are_counted() -> None:
    assert shown([3.0, None, 3.0], "{:.1f}").endswith("; not reached in 1")
    assert shown([None], "{:.1f}") == "never reached"


def test_what_was_not_measured_has_no_line() -> None:
    assert measured.on_cpu({}) == measured.on_gpu({}) == []
    lines = measured.on_cpu({"full": cpu_rows()["full"]})
    assert [what for what, _ in lines] == ["test accuracy of `full`", "wall time of `full`"]


def test_the_cpu_table_is_right() -> None:
    lines = measured.on_cpu(cpu_rows())
    # 34 + 20 epochs of 180, 200 and 220 s, each over the 200 s after which 71.35 % is passed.
    assert (
        value(lines, "wall time of the Keras script's 20 epochs")
        == "20.2 x (18.2 x to 22.2 x, 3 runs)"
    )
    # Keras ends at 65 %, which is passed after 160 s.
    assert value(lines, "the same, until `quick`").startswith("25.2 x")
    # 4,034 s over 300 + 9 x 80 + 8 x 80.
    assert value(lines, "wall time of the Keras script / `main.py`") == "2.43 x"
    assert value(lines, "test accuracy of the Keras script") == "65.00 %"
    assert value(lines, "test accuracy of `main.py`") == "64.00 %"
    assert value(lines, "test accuracy of `quick`") == "78.00 %"
    assert value(lines, "`quick` on a warm cache").startswith("90 s")
    assert value(lines, "frozen trunk, images/s of thawnet / ONNX") == "1.50 x"
    assert value(lines, "share of a `full`") == "93.0 % (91.0 % to 95.0 %, 2 runs)"
    assert value(lines, "whole run against a + b N") == "0.0 %"
    assert value(lines, "anonymous memory") == "0.0 %"
    assert value(lines, "images/s with every layer") == "2.0 x"
    assert value(lines, "wall time of `full`") == "3500 s"
    assert value(lines, "`thawnet predict` of one image") == "0.55 s (0.50 s to 0.60 s, 2 runs)"
    assert value(lines, "prediction of 10,000 JPEGs of 32 x 32") == "100 %"
    assert value(lines, "prediction of 10,000 JPEGs of 500 x") == "80 %"
    assert value(lines, "`thawnet predict` of 100,000 JPEGs") == "210 MB"
    assert value(lines, "its growth from 10,000") == "5.0 %"


def test_the_gpu_table_is_right() -> None:
    rows: dict[str, Any] = {
        "quick-0": record({"run": trial((20.0, 0.72), wall=60.0)}),
        "quick-1": record({"run": trial((21.0, 0.72), wall=60.0)}),
        "speed-0": record({"run": trial((10, 0.70), (12, 0.76), test=0.76)}),
        "speed-1": record({"run": trial((10, 0.70), (12, 0.75), test=0.75)}),
        "share": cpu_rows()["share"],
        "timm": cpu_rows()["timm"],
    }
    rows["share"]["figures"]["floor"] = {"seconds": 2.0, "bandwidth": 1e12, "rate": 1e14}
    lines = measured.on_gpu(rows)
    # As many seeds as are there.
    assert value(lines, "`quick` until") == "20.5 s (20.0 s to 21.0 s, 2 runs)"
    # By the clock of the run, 5 s behind the process's.
    assert value(lines, "`speed` from open data until 75.25 %") == "7.00 s; not reached in 1"
    assert value(lines, "training images/s of `full-gpu` / the same").startswith("93.0 %")
    assert value(lines, "training images/s of `full-gpu` / timm") == "2.0 x"
    # 2 steps of an epoch in 9.1 and 9.5 s.
    assert value(lines, "a step of `full-gpu` / its floor").startswith("2.3 x")
