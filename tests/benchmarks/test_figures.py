"""The table says what was measured, extrapolates as stated, and has no line for what was not."""

from __future__ import annotations

import re
from typing import Any

import pytest

import figures
import page
from figures import Rows
from runs import ROOT
from support.benchmark_rows import cpu_rows, epochs, trial


def value(lines: list[tuple[str, str]], start: str) -> str:
    (found,) = [value for title, value in lines if title.startswith(start)]
    return found


@pytest.mark.parametrize(
    ("recipe", "kind", "title"),
    [
        ("quick", "cpu", "test accuracy of `quick`"),
        ("full", "cpu", "test accuracy of `full`"),
        ("full-gpu", "gpu", "test accuracy of `full`"),
        ("seed", "cpu", "test accuracy of `main.py`"),
    ],
)
def test_what_is_told_of_a_recipe_is_what_was_measured(recipe: str, kind: str, title: str) -> None:
    rows = page.measured(page.load(ROOT / "benchmarks", kind))
    measured = value(figures.lines(kind, rows), title)
    opening, _, _ = (ROOT / f"src/thawnet/recipes/{recipe}.toml").read_text().partition("\nname = ")
    assert measured in opening
    (row,) = re.findall(rf"^\| `{recipe}` \|.*$", (ROOT / "docs/recipes.md").read_text(), re.M)
    assert measured in row
    assert kind == "gpu" or f"| {measured} " in (ROOT / "README.md").read_text()


def test_a_spread_is_told_around_the_median() -> None:
    assert figures.spread([1.0, 2.5, 3.0], "{:.1f}") == "2.5 (1.0 to 3.0, 3 runs)"
    assert figures.spread([2.5], "{:.1f} s") == "2.5 s"


def test_runs_that_never_got_there_are_counted() -> None:
    assert figures.spread([3.0, None, 3.0], "{:.1f}").endswith("; not reached in 1")
    assert figures.spread([None], "{:.1f}") == "never reached"


def test_an_accuracy_is_reached_when_an_epoch_first_passes_it() -> None:
    rows = epochs((10, 0.5), (20, 0.7), (30, 0.6), (40, 0.8))
    assert figures.reached(rows, 0.5) == 20
    assert figures.reached(rows, 0.75) == 40
    assert figures.reached(rows, 0.8) is None


def test_every_epoch_of_the_keras_script_pays_for_its_shuffle_and_its_validation() -> None:
    phase = {
        "train": {"first": 12.0, "rest": [2.0] * 4},
        "validate": {"first": 2.5, "rest": [0.5] * 4},
    }
    once = {"start": 4.0, "data": 5.0, "model": 1.0, "fill": 3.0}
    parts = {"images": 6400, "held_out": 640, "batch": 64}
    total = figures.keras_seconds({**once, **parts, "phases": [phase, phase]})
    # In each phase 10 s of tracing to train, of which the first shuffle took 3, and 2 to validate.
    assert total == pytest.approx(4 + 5 + 1 + 2 * (10 - 3 + 2) + 20 * (3 + 100 * 2 + 10 * 0.5))


def test_main_py_is_extrapolated_from_one_and_two_epochs() -> None:
    short = trial((100, 0.4), (200, 0.5), (280, 0.55), wall=300.0)
    # 20 s of the first thawed epoch went to compiling: paid once.
    assert figures.seed_seconds(short) == pytest.approx(300 + 9 * 80 + 8 * 80)


def test_deviation_is_that_from_the_best_line() -> None:
    line = [{"images": count, "wall": 30 + 0.004 * count} for count in (10_000, 50_000, 200_000)]
    assert figures.deviation(line) == pytest.approx(0, abs=1e-9)
    bent = [{"images": count, "wall": wall} for count, wall in ((1, 10.0), (2, 30.0), (3, 75.0))]
    assert figures.deviation(bent) > 0.05


def test_what_was_not_measured_has_no_line() -> None:
    assert figures.lines("cpu", Rows()) == figures.lines("gpu", Rows()) == []
    lines = figures.lines("cpu", Rows(full=cpu_rows()["full"]))
    assert [title for title, _ in lines] == ["test accuracy of `full`", "wall time of `full`"]


def test_the_cpu_table_is_right() -> None:
    lines = figures.lines("cpu", cpu_rows())
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
    few = "`quick` on 20 photos of each class of flowers"
    assert value(lines, f"{few}, test") == "60.0 % (60.0 % to 60.0 %, 3 runs)"
    assert value(lines, f"{few}, above the head") == "+2.0 (+0.0 to +5.0, 3 runs)"
    assert value(lines, f"{few}, wall time") == "24 s (20 s to 25 s, 3 runs)"
    lite = "`quick` on flowers from tf_efficientnet_lite0"
    assert value(lines, f"{lite}, test") == "82.0 %"
    assert value(lines, f"{lite}, above the head") == "+12.0"
    assert value(lines, "`quick` on flowers from mobilenetv2_100, wall") == "60 s"
    assert value(lines, "fastai's fine_tune(5) on flowers from mobilenetv2_100, test") == "70.0 %"
    assert value(lines, "fastai's fine_tune(5) on flowers from mobilenetv2_100, wall") == "300 s"
    assert value(lines, "`quick` on the panel, mean") == "81.00 %"
    assert value(lines, "the same, less fastai's") == "+10.0"
    assert value(lines, "wall time of `quick` on the panel / fastai's") == "20 %"
    assert value(lines, "`thawnet predict` of one image") == "0.55 s (0.50 s to 0.60 s, 2 runs)"
    assert value(lines, "prediction of 10,000 JPEGs of 32 x 32") == "100 %"
    assert value(lines, "prediction of 10,000 JPEGs of 500 x") == "80 %"
    assert value(lines, "`thawnet predict` of 100,000 JPEGs") == "210 MB"
    assert value(lines, "its growth from 10,000") == "5.0 %"


def test_the_gpu_table_is_right() -> None:
    measured = cpu_rows()
    floor = {"seconds": 2.0, "bandwidth": 1e12, "rate": 1e14}
    rows: dict[str, Any] = {
        "quick-0": {"run": trial((20.0, 0.72), wall=60.0)},
        "quick-1": {"run": trial((21.0, 0.72), wall=60.0)},
        "speed-0": {"run": trial((10, 0.70), (12, 0.76), test=0.76)},
        "speed-1": {"run": trial((10, 0.70), (12, 0.75), test=0.75)},
        "share": {**measured["share"], "floor": floor},
        "timm": measured["timm"],
    }
    lines = figures.lines("gpu", Rows(rows))
    # As many seeds as are there.
    assert value(lines, "`quick` until") == "20.5 s (20.0 s to 21.0 s, 2 runs)"
    # By the clock of the run, 5 s behind the process's.
    assert value(lines, "`speed` from open data until 75.25 %") == "7.00 s; not reached in 1"
    assert value(lines, "training images/s of `full-gpu` / the same").startswith("93.0 %")
    assert value(lines, "training images/s of `full-gpu` / timm") == "2.0 x"
    # 2 steps of an epoch in 9.1 and 9.5 s.
    assert value(lines, "a step of `full-gpu` / its floor").startswith("2.3 x")
