"""A table says what was measured, and does not call met what is not."""

from __future__ import annotations

from typing import Any

import pytest

import claims
from claims import Claim, Goal, Missing, line
from support.benchmark_rows import cpu_rows, epochs, record, trial


def claim(lines: list[Claim], start: str) -> Claim:
    (found,) = [each for each in lines if each.what.startswith(start)]
    return found


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        (Goal(20), 20.0, "met"),
        (Goal(20), 18.5, "falls short by 1.5"),
        (Goal(100, most=True), 100.0, "met"),
        (Goal(100, most=True), 101.25, "exceeds it by 1.2"),
        (Goal(), 1.0, ""),
    ],
)
def test_a_goal_is_met_or_missed_by_so_much(goal: Goal, value: float, verdict: str) -> None:
    assert line("x", goal, lambda: [value]).verdict == verdict


def test_a_spread_is_told_and_the_median_counts() -> None:
    found = line("x", Goal(2), lambda: [1.0, 2.5, 3.0])
    assert found.measured == "2.5 (1.0 to 3.0, 3 runs)"
    assert found.verdict == "met"


def test_one_run_that_never_got_there_is_not_met() -> None:
    found = line("x", Goal(2), lambda: [3.0, None, 3.0])
    assert found.verdict == "not met"
    assert "not reached in 1" in found.measured
    assert line("x", Goal(2), lambda: [None]).measured == "never reached"


def test_a_row_that_is_missing_is_named() -> None:
    def values() -> list[float]:
        raise Missing("trunk")

    found = line("x", Goal(2), values)
    assert "ROW=trunk" in found.measured
    assert found.verdict == ""


def test_without_rows_every_line_says_so() -> None:
    lines = [*claims.on_cpu({}), *claims.on_gpu({})]
    assert all("not measured yet" in each.measured and not each.verdict for each in lines)


def test_the_cpu_table_is_right() -> None:
    lines = claims.on_cpu(cpu_rows())
    # 34 + 20 epochs of 180, 200 and 220 s, each over the 200 s after which 71.35 % is passed.
    first = claim(lines, "wall time of the Keras script's 20 epochs")
    assert first.measured == "20.2 x (18.2 x to 22.2 x, 3 runs)"
    assert first.verdict == "met"
    # Keras ends at 65 %, which is passed after 160 s.
    assert claim(lines, "the same, until `quick`").measured.startswith("25.2 x")
    # 4,034 s over 300 + 9 x 80 + 8 x 80.
    assert claim(lines, "wall time of the Keras script / `main.py`").measured == "2.43 x"
    assert claim(lines, "test accuracy of `main.py` less").measured == "1.00"
    assert claim(lines, "test accuracy of `quick`").verdict == "met"
    assert claim(lines, "`quick` on a warm cache").measured.startswith("90 s")
    assert claim(lines, "frozen trunk, images/s of thawnet / ONNX").measured == "1.50 x"
    assert claim(lines, "share of a `full`").measured == "93.0 % (91.0 % to 95.0 %, 2 runs)"
    assert claim(lines, "whole run against a + b N").measured == "0.0 %"
    assert claim(lines, "anonymous memory").measured == "0.0 %"
    assert claim(lines, "images/s with every layer").measured == "2.0 x"
    assert claim(lines, "wall time of `full`").verdict == "met"
    assert (
        claim(lines, "`thawnet predict` of one image").measured
        == "0.55 s (0.50 s to 0.60 s, 2 runs)"
    )
    assert claim(lines, "prediction of 10,000 JPEGs of 32 x 32").measured == "100 %"
    assert claim(lines, "prediction of 10,000 JPEGs of 500 x").verdict == "falls short by 10 %"
    assert claim(lines, "`thawnet predict` of 100,000 JPEGs").measured == "210 MB"
    assert claim(lines, "its growth from 10,000").measured == "5.0 %"


def test_a_slower_run_is_not_met() -> None:
    rows = cpu_rows()
    for pair in rows["quick"]["figures"]["pairs"]:
        pair["cold"]["epochs"] = epochs((500, 0.72))
    found = claim(claims.on_cpu(rows), "wall time of the Keras script's 20 epochs")
    assert found.verdict.startswith("falls short by")


def test_the_gpu_table_takes_the_seeds_that_are_there() -> None:
    rows: dict[str, Any] = {
        f"quick-{seed}": record({"run": trial((20.0 + seed, 0.72), wall=60.0)}) for seed in range(2)
    }
    lines = claims.on_gpu(rows)
    assert claim(lines, "`quick` until").measured == "20.5 s (20.0 s to 21.0 s, 2 runs)"
    assert "ROW=full-0" in claim(lines, "test accuracy of `full`").measured


def test_the_gpu_table_is_right() -> None:
    rows = {
        "speed-0": record({"run": trial((10, 0.70), (12, 0.76), test=0.76)}),
        "speed-1": record({"run": trial((10, 0.70), (12, 0.75), test=0.75)}),
        "best-0": record({"run": trial((300, 0.83), test=0.83)}),
        "share": cpu_rows()["share"],
        "timm": cpu_rows()["timm"],
    }
    rows["share"]["figures"]["floor"] = {"seconds": 2.0, "bandwidth": 1e12, "rate": 1e14}
    lines = claims.on_gpu(rows)
    # By the clock of the run, 5 s behind the process's.
    found = claim(lines, "seconds of `speed` from open data until 75.25 %")
    assert (found.measured, found.verdict) == ("7.00 s; not reached in 1", "not met")
    assert "3.96 s on one A100" in found.what
    assert claim(lines, "test accuracy of `best`").verdict == "met"
    assert claim(lines, "training images/s of `full-gpu` / the same").verdict.startswith("falls")
    assert claim(lines, "training images/s of `full-gpu` / timm").verdict == "falls short by 1.0 x"
    # 2 steps of an epoch in 9.1 and 9.5 s.
    assert claim(lines, "a step of `full-gpu` / its floor").measured.startswith("2.3 x")
