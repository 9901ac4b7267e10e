"""Extrapolations, ratios and fits say what a whole measurement would have said."""

from __future__ import annotations

import pytest

import figures
from support.benchmark_rows import epochs, timed, trial


def test_an_accuracy_is_reached_when_an_epoch_first_passes_it() -> None:
    rows = epochs((10, 0.5), (20, 0.7), (30, 0.6), (40, 0.8))
    assert figures.reached(rows, 0.5) == 20
    assert figures.reached(rows, 0.75) == 40
    assert figures.reached(rows, 0.8) is None


def test_the_keras_script_is_extrapolated_to_all_its_epochs() -> None:
    found = figures.keras_run(timed(2.0))
    # Start, data, model; in each phase 10 s of tracing to train and 2 s to validate.
    assert found.once == pytest.approx(4 + 5 + 1 + 2 * (10 + 2))
    assert found.epochs == pytest.approx((200, 200))
    assert found.total == pytest.approx(34 + 20 * 200)


def test_every_epoch_pays_for_its_shuffle_and_its_validation() -> None:
    plain = timed(2.0)
    checked = {**plain, "fill": 3.0}
    for phase in checked["phases"]:
        phase["validate"] = {"first": 2.5, "rest": [0.5] * 4}
    found = figures.keras_run(checked)
    assert found.epochs == pytest.approx((200 + 3 + 5, 200 + 3 + 5))
    # The first shuffle was part of the first step, and is not counted twice.
    assert found.once == pytest.approx(34 - 2 * 3)


def test_main_py_is_extrapolated_from_one_and_two_epochs() -> None:
    short = trial((100, 0.4), (200, 0.5), (280, 0.55), wall=300.0)
    found = figures.seed_run(short)
    assert found.epochs == pytest.approx((80, 80))
    # 20 s of the first thawed epoch went to compiling: paid once.
    assert found.total == pytest.approx(300 + 9 * 80 + 8 * 80)


def test_a_timm_epoch_counts_its_last_part_of_a_batch() -> None:
    found = {"images": 100, "batch": 64, "train": {"first": 9.0, "rest": [1.0, 3.0]}}
    assert figures.timm_epoch(found) == pytest.approx(2 * 100 / 64)


def test_a_line_is_found_again() -> None:
    counts = (10_000, 50_000, 200_000)
    found = figures.line(counts, [30 + 0.004 * count for count in counts])
    assert found.a == pytest.approx(30)
    assert found.b == pytest.approx(0.004)
    assert found.deviation == pytest.approx(0, abs=1e-9)


def test_what_is_no_line_deviates() -> None:
    found = figures.line((1, 2, 3), (10.0, 30.0, 50.0 * 1.5))
    assert found.deviation > 0.05


def test_growth_is_the_most_over_the_least() -> None:
    assert figures.growth([2.0, 1.0, 1.5]) == pytest.approx(1.0)
