"""What is asked, what was measured, and whether it is met: the lines of the tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import figures
from figures import REFERENCE, keras_run, reached, seed_run, spread

QUICK_ACCURACY = 0.77
QUICK_SECONDS = 600.0
WARM_SECONDS = 100.0
FULL_SECONDS = 3600.0
PREDICT_SECONDS = 0.6
PREDICT_MEGABYTES = 500.0
SPEED_ACCURACY = 0.7525
SPEED_SECONDS = 3.96  # from scratch, on one A100

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Claim:
    """A line of a table; verdict: 'met', by how much it falls short, or nothing if none is due."""

    what: str
    asked: str
    measured: str
    verdict: str = ""


@dataclass(frozen=True)
class Missing(Exception):  # noqa: N818 - not an error, a row that is still to be done
    """A row that a line needs was not measured."""

    row: str


@dataclass(frozen=True)
class Goal:
    """What a figure is held against: at least or at most so much, written in this format."""

    bound: float | None = None
    most: bool = False
    format: str = "{:.1f}"

    @property
    def asked(self) -> str:
        """The goal in words."""
        if self.bound is None:
            return "to be reported"
        return f"at {'most' if self.most else 'least'} {self.format.format(self.bound)}"

    def verdict(self, value: float) -> str:
        """Say whether a value meets the goal, or by how much it does not."""
        if self.bound is None:
            return ""
        short = value - self.bound if self.most else self.bound - value
        if short <= 0:
            return "met"
        return f"{'exceeds it' if self.most else 'falls short'} by {self.format.format(short)}"


def line(what: str, goal: Goal, values: Callable[[], Sequence[float | None]]) -> Claim:
    """Return a line of a table from the repetitions of one figure; None: it was never reached."""
    try:
        found = values()
    except Missing as missing:
        return Claim(what, goal.asked, f"not measured yet (ROW={missing.row})")
    known = [value for value in found if value is not None]
    if not known:
        return Claim(what, goal.asked, "never reached", "not met" if goal.bound else "")
    shown = spread(known)
    text = goal.format.format(shown.median)
    if shown.count > 1:
        low, high = (goal.format.format(value) for value in (shown.least, shown.most))
        text += f" ({low} to {high}, {shown.count} runs)"
    if len(known) < len(found):
        text += f"; not reached in {len(found) - len(known)}"
        return Claim(what, goal.asked, text, "not met" if goal.bound else "")
    return Claim(what, goal.asked, text, goal.verdict(shown.median))


def of(rows: Rows, row: str) -> Any:
    """Return the figures of a row. Raises Missing."""
    if row not in rows:
        raise Missing(row)
    return rows[row]["figures"]


# --- CPU ----------------------------------------------------------------------------------------


def on_cpu(rows: Rows) -> list[Claim]:
    """Return the lines of the CPU table."""
    times, percent, seconds = "{:.1f} x", "{:.2f} %", "{:.0f} s"
    return [
        line(
            "wall time of the Keras script's 20 epochs / `quick` until it passes "
            f"{100 * REFERENCE:.2f} % on validation, empty caches",
            Goal(20, format=times),
            lambda: faster_to(rows, REFERENCE),
        ),
        line(
            "the same, until `quick` passes the accuracy at which the Keras script ends",
            Goal(35, format=times),
            lambda: faster_to(rows, keras_end(rows)),
        ),
        line(
            "wall time of the Keras script / `main.py` (`seed`), 20 epochs each "
            "(2 x faster is wished)",
            Goal(1, format="{:.2f} x"),
            lambda: [
                keras_run(pair["keras"]).total / seed_run(pair["seed"]).total
                for pair in of(rows, "seed")["pairs"]
            ],
        ),
        line(
            "wall time of the Keras script, whole, / what is extrapolated from its steps",
            Goal(format="{:.2f} x"),
            lambda: [
                of(rows, "keras")["epochs"][-1]["at"] / keras_run(pair["keras"]).total
                for pair in of(rows, "quick")["pairs"]
            ],
        ),
        line(
            "test accuracy of `main.py` less the Keras script's, either way, points",
            Goal(1.5, most=True, format="{:.2f}"),
            lambda: [100 * abs(_tested(of(rows, "seed")["whole"]) - keras_end(rows))],
        ),
        line(
            "test accuracy of `quick`, mean of the seeds",
            Goal(100 * QUICK_ACCURACY, format=percent),
            lambda: [100 * statistics.fmean(_tested(run) for run in cold(rows))],
        ),
        line(
            "wall time of `quick`, test and baseline included, empty caches",
            Goal(QUICK_SECONDS, most=True, format=seconds),
            lambda: [run["wall"] for run in cold(rows)],
        ),
        line(
            f"`quick` on a warm cache, until {100 * REFERENCE:.2f} % on validation",
            Goal(WARM_SECONDS, most=True, format=seconds),
            lambda: [
                reached(pair["warm"]["epochs"], REFERENCE) for pair in of(rows, "quick")["pairs"]
            ],
        ),
        line(
            "frozen trunk, images/s of thawnet / ONNX Runtime float32, each at its best batch",
            Goal(1, format="{:.2f} x"),
            lambda: raced(rows, "onnxruntime"),
        ),
        line(
            "frozen trunk, images/s of thawnet / eager PyTorch float32, each at its best batch",
            Goal(format="{:.2f} x"),
            lambda: raced(rows, "eager"),
        ),
        line(
            "share of a `full` training epoch that is forward, backward and step",
            Goal(90, format="{:.1f} %"),
            lambda: shares(of(rows, "share")),
        ),
        line(
            "whole run against a + b N images, the worst deviation",
            Goal(10, most=True, format="{:.1f} %"),
            lambda: [100 * fitted(of(rows, "scale")["runs"]).deviation],
        ),
        line(
            "anonymous memory, the most over the least as N grows",
            Goal(10, most=True, format="{:.1f} %"),
            lambda: [100 * figures.growth([run["memory"] for run in of(rows, "scale")["runs"]])],
        ),
        line(
            "images/s with every layer training at 96 px, `full-gpu` / timm's loop",
            Goal(format="{:.1f} x"),
            lambda: timm_ratios(rows),
        ),
        line(
            "test accuracy of `full`",
            Goal(format=percent),
            lambda: [100 * _tested(of(rows, "full")["run"])],
        ),
        line(
            "wall time of `full`",
            Goal(FULL_SECONDS, most=True, format=seconds),
            lambda: [of(rows, "full")["run"]["wall"]],
        ),
        line(
            "`thawnet predict` of one image, process start to answer, warm disk",
            Goal(PREDICT_SECONDS, most=True, format="{:.2f} s"),
            lambda: of(rows, "predict")["starts"],
        ),
        *(
            line(
                f"prediction of 10,000 JPEGs of {shown}, images/s / what decoding and the network "
                "alone allow",
                Goal(90, format="{:.0f} %"),
                lambda name=name: predicted(of(rows, "predict")[name]),
            )
            for name, shown in (("small", "32 x 32"), ("large", "500 x 375"))
        ),
        line(
            "`thawnet predict` of 100,000 JPEGs of 32 x 32, anonymous memory",
            Goal(PREDICT_MEGABYTES, most=True, format="{:.0f} MB"),
            lambda: [max(of(rows, "predict")["memory"].values()) / 1e6],
        ),
        line(
            "its growth from 10,000 of them, at most over at least",
            Goal(10, most=True, format="{:.1f} %"),
            lambda: [100 * figures.growth(list(of(rows, "predict")["memory"].values()))],
        ),
    ]


def predicted(found: Mapping[str, Any]) -> list[float]:
    """Return, per turn, the speed of predicting over that of its halves one after another, in %."""
    return [100 * (turn["decode"] + turn["network"]) / turn["predict"] for turn in found["turns"]]


def cold(rows: Rows) -> list[Any]:
    """Return the runs of `quick` on empty caches."""
    return [pair["cold"] for pair in of(rows, "quick")["pairs"]]


def _tested(run: Mapping[str, Any]) -> float:
    return float(run["metrics"]["test"]["accuracy"])


def keras_end(rows: Rows) -> float:
    """Return the accuracy at which the whole Keras script ended."""
    return float(of(rows, "keras")["epochs"][-1]["val_accuracy"])


def faster_to(rows: Rows, accuracy: float) -> list[float | None]:
    """Return, per pair, the Keras script's whole time over that of `quick` until an accuracy."""
    found: list[float | None] = []
    for pair in of(rows, "quick")["pairs"]:
        at = reached(pair["cold"]["epochs"], accuracy)
        found.append(None if at is None else keras_run(pair["keras"]).total / at)
    return found


def raced(rows: Rows, rival: str) -> list[float]:
    """Return, per turn, thawnet's speed over a rival's."""
    return [turn["thawnet"] / turn[rival] for turn in of(rows, "trunk")["turns"]]


def shares(found: Mapping[str, Any]) -> list[float]:
    """Return the share of computing in each pair of epochs, in percent."""
    pairs = zip(found["compute"], found["whole"], strict=True)
    return [100 * compute / whole for compute, whole in pairs]


def fitted(runs: Sequence[Mapping[str, Any]]) -> figures.Line:
    """Return the line through the whole times of runs on more and more images."""
    return figures.line([run["images"] for run in runs], [run["wall"] for run in runs])


def timm_ratios(rows: Rows) -> list[float]:
    """Return, per pair, the speed of `full-gpu` over that of timm's loop."""
    return [
        thawed_speed(pair["full"]) / (pair["timm"]["images"] / figures.timm_epoch(pair["timm"]))
        for pair in of(rows, "timm")["pairs"]
    ]


def above_floor(found: Mapping[str, Any]) -> list[float]:
    """Return, per epoch on ready batches, the seconds of a step over the least it could take."""
    return [each / found["steps"] / found["floor"]["seconds"] for each in found["compute"]]


def recipe_runs(rows: Rows, recipe: str) -> list[Any]:
    """Return the runs of a recipe on a GPU, of as many seeds as were done. Raises Missing."""
    names = sorted(name for name in rows if name.startswith(f"{recipe}-"))
    return [of(rows, name)["run"] for name in names or [f"{recipe}-0"]]


def thawed_speed(run: Mapping[str, Any]) -> float:
    """Return images/s of a run's last epoch, all of whose layers train."""
    return float(run["epochs"][-1]["images_per_second"])


# --- GPU ----------------------------------------------------------------------------------------


def on_gpu(rows: Rows) -> list[Claim]:
    """Return the lines of the GPU table."""
    return [
        *_recipe_lines(rows, "quick"),
        *_recipe_lines(
            rows, "full", Goal(60, most=True, format="{:.0f} s"), Goal(80, format="{:.2f} %")
        ),
        *_recipe_lines(
            rows, "best", Goal(600, most=True, format="{:.0f} s"), Goal(82, format="{:.2f} %")
        ),
        *_recipe_lines(rows, "speed"),
        line(
            f"seconds of `speed` from open data until {100 * SPEED_ACCURACY:.2f} % on validation, "
            f"compiling apart, from ImageNet weights (the from-scratch record is {SPEED_SECONDS} s "
            "on one A100)",
            Goal(SPEED_SECONDS, most=True, format="{:.2f} s"),
            lambda: [
                reached(run["epochs"], SPEED_ACCURACY, "elapsed")
                for run in recipe_runs(rows, "speed")
            ],
        ),
        line(
            "training images/s of `full-gpu` / the same compiled step on one fixed batch",
            Goal(95, format="{:.1f} %"),
            lambda: shares(of(rows, "share")),
        ),
        line(
            "training images/s of `full-gpu` / timm's loop, the same size, batch and precision",
            Goal(3, format="{:.1f} x"),
            lambda: timm_ratios(rows),
        ),
        line(
            "a step of `full-gpu` / its floor from bytes and operations",
            Goal(format="{:.1f} x"),
            lambda: above_floor(of(rows, "share")),
        ),
        line(
            "frozen trunk, images/s of thawnet",
            Goal(format="{:,.0f}"),
            lambda: [turn["thawnet"] for turn in of(rows, "trunk")["turns"]],
        ),
        line(
            "the same / eager PyTorch float32",
            Goal(format="{:.2f} x"),
            lambda: raced(rows, "eager"),
        ),
        line(
            "the same / eager PyTorch under bfloat16 autocast",
            Goal(format="{:.2f} x"),
            lambda: raced(rows, "eager-bf16"),
        ),
        line(
            "`main.py` (`seed`), 10 + 10 epochs, extrapolated from 1 + 2",
            Goal(format="{:.0f} s"),
            lambda: [seed_run(of(rows, "seed")["short"]).total],
        ),
    ]


def _recipe_lines(
    rows: Rows,
    recipe: str,
    learning: Goal = Goal(format="{:.0f} s"),
    accuracy: Goal = Goal(format="{:.2f} %"),
) -> list[Claim]:
    """Return the lines of a recipe, over as many seeds as were done.

    learning: seconds from the data being open to the last validation, compiling apart. accuracy: on
    test, in percent.
    """

    def runs() -> list[Any]:
        return recipe_runs(rows, recipe)

    return [
        line(
            f"`{recipe}` until {100 * REFERENCE:.2f} % on validation, empty caches",
            Goal(format="{:.1f} s"),
            lambda: [reached(run["epochs"], REFERENCE) for run in runs()],
        ),
        line(
            f"seconds of `{recipe}` from open data to its last validation, compiling apart",
            learning,
            lambda: [run["epochs"][-1]["elapsed"] for run in runs()],
        ),
        line(
            f"wall time of `{recipe}`, test and baseline included, empty caches",
            Goal(format="{:.0f} s"),
            lambda: [run["wall"] for run in runs()],
        ),
        line(
            f"test accuracy of `{recipe}`",
            accuracy,
            lambda: [100 * _tested(run) for run in runs()],
        ),
    ]
