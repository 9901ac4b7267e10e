"""The figures of the rows, a line each: the median of its runs, the least and the most."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import figures
from figures import REFERENCE, keras_run, reached, seed_run, spread

SPEED_ACCURACY = 0.7525  # of the from-scratch record that `speed` is timed to

Rows = Mapping[str, Mapping[str, Any]]
Line = tuple[str, str]  # what, and what was measured
Values = Callable[[], Sequence[float | None]]


class MissingRowError(Exception):
    """A row that a line needs was not measured."""


def lines_of(wanted: Sequence[tuple[str, str, Values]]) -> list[Line]:
    """Return a line for each figure, (what, format, values), whose rows were measured."""
    lines = []
    for what, form, values in wanted:
        try:
            lines.append((what, shown(values(), form)))
        except MissingRowError:
            continue
    return lines


def shown(values: Sequence[float | None], form: str) -> str:
    """Return the repetitions of a figure in a few words; None: it was never reached."""
    known = [value for value in values if value is not None]
    if not known:
        return "never reached"
    found = spread(known)
    text = form.format(found.median)
    if found.count > 1:
        low, high = form.format(found.least), form.format(found.most)
        text += f" ({low} to {high}, {found.count} runs)"
    never = len(values) - len(known)
    return f"{text}; not reached in {never}" if never else text


def of(rows: Rows, row: str) -> Any:
    """Return the figures of a row. Raises MissingRowError."""
    if row not in rows:
        raise MissingRowError(row)
    return rows[row]["figures"]


# --- CPU ----------------------------------------------------------------------------------------


def on_cpu(rows: Rows) -> list[Line]:
    """Return the lines of the CPU table."""
    times, percent, seconds = "{:.1f} x", "{:.2f} %", "{:.0f} s"
    return lines_of(
        [
            (
                "wall time of the Keras script's 20 epochs / `quick` until it passes "
                f"{100 * REFERENCE:.2f} % on validation, empty caches",
                times,
                lambda: faster_to(rows, REFERENCE),
            ),
            (
                "the same, until `quick` passes the accuracy at which the Keras script ends",
                times,
                lambda: faster_to(rows, keras_end(rows)),
            ),
            (
                "wall time of the Keras script / `main.py` (`seed`), 20 epochs each",
                "{:.2f} x",
                lambda: [
                    keras_run(pair["keras"]).total / seed_run(pair["seed"]).total
                    for pair in of(rows, "seed")["pairs"]
                ],
            ),
            (
                "wall time of the Keras script, whole, / what is extrapolated from its steps",
                "{:.2f} x",
                lambda: [
                    of(rows, "keras")["epochs"][-1]["at"] / keras_run(pair["keras"]).total
                    for pair in of(rows, "quick")["pairs"]
                ],
            ),
            (
                "test accuracy of the Keras script",
                percent,
                lambda: [100 * keras_end(rows)],
            ),
            (
                "test accuracy of `main.py`",
                percent,
                lambda: [100 * _tested(of(rows, "seed")["whole"])],
            ),
            (
                "test accuracy of `quick`, mean of the seeds",
                percent,
                lambda: [100 * statistics.fmean(_tested(run) for run in cold(rows))],
            ),
            (
                "wall time of `quick`, test and baseline included, empty caches",
                seconds,
                lambda: [run["wall"] for run in cold(rows)],
            ),
            (
                f"`quick` on a warm cache, until {100 * REFERENCE:.2f} % on validation",
                seconds,
                lambda: [
                    reached(pair["warm"]["epochs"], REFERENCE)
                    for pair in of(rows, "quick")["pairs"]
                ],
            ),
            (
                "frozen trunk, images/s of thawnet / ONNX Runtime float32, each at its best batch",
                "{:.2f} x",
                lambda: raced(rows, "onnxruntime"),
            ),
            (
                "frozen trunk, images/s of thawnet / eager PyTorch float32, each at its best batch",
                "{:.2f} x",
                lambda: raced(rows, "eager"),
            ),
            (
                "share of a `full` training epoch that is forward, backward and step",
                "{:.1f} %",
                lambda: shares(of(rows, "share")),
            ),
            (
                "whole run against a + b N images, the worst deviation",
                "{:.1f} %",
                lambda: [100 * fitted(of(rows, "scale")["runs"]).deviation],
            ),
            (
                "anonymous memory, the most over the least as N grows",
                "{:.1f} %",
                lambda: [
                    100 * figures.growth([run["memory"] for run in of(rows, "scale")["runs"]])
                ],
            ),
            (
                "images/s with every layer training at 96 px, `full-gpu` / timm's loop",
                times,
                lambda: timm_ratios(rows),
            ),
            (
                "test accuracy of `full`",
                percent,
                lambda: [100 * _tested(of(rows, "full")["run"])],
            ),
            ("wall time of `full`", seconds, lambda: [of(rows, "full")["run"]["wall"]]),
            (
                "`thawnet predict` of one image, process start to answer, warm disk",
                "{:.2f} s",
                lambda: of(rows, "predict")["starts"],
            ),
            *(
                (
                    f"prediction of 10,000 JPEGs of {size}, images/s / what decoding and the "
                    "network alone allow",
                    "{:.0f} %",
                    lambda name=name: predicted(of(rows, "predict")[name]),
                )
                for name, size in (("small", "32 x 32"), ("large", "500 x 375"))
            ),
            (
                "`thawnet predict` of 100,000 JPEGs of 32 x 32, anonymous memory",
                "{:.0f} MB",
                lambda: [max(of(rows, "predict")["memory"].values()) / 1e6],
            ),
            (
                "its growth from 10,000 of them, at most over at least",
                "{:.1f} %",
                lambda: [100 * figures.growth(list(of(rows, "predict")["memory"].values()))],
            ),
        ]
    )


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
    """Return the runs of a recipe on a GPU, of as many seeds as were done."""
    names = sorted(name for name in rows if name.startswith(f"{recipe}-"))
    return [of(rows, name)["run"] for name in names or [f"{recipe}-0"]]


def thawed_speed(run: Mapping[str, Any]) -> float:
    """Return images/s of a run's last epoch, all of whose layers train."""
    return float(run["epochs"][-1]["images_per_second"])


# --- GPU ----------------------------------------------------------------------------------------


def on_gpu(rows: Rows) -> list[Line]:
    """Return the lines of the GPU table."""
    recipes = [each for name in ("quick", "full", "best", "speed") for each in _recipe(rows, name)]
    return lines_of(
        [
            *recipes,
            (
                f"`speed` from open data until {100 * SPEED_ACCURACY:.2f} % on validation, "
                "compiling apart, from ImageNet weights (the from-scratch record is 3.96 s on one "
                "A100)",
                "{:.2f} s",
                lambda: [
                    reached(run["epochs"], SPEED_ACCURACY, "elapsed")
                    for run in recipe_runs(rows, "speed")
                ],
            ),
            (
                "training images/s of `full-gpu` / the same compiled step on one fixed batch",
                "{:.1f} %",
                lambda: shares(of(rows, "share")),
            ),
            (
                "training images/s of `full-gpu` / timm's loop, the same size, batch and precision",
                "{:.1f} x",
                lambda: timm_ratios(rows),
            ),
            (
                "a step of `full-gpu` / its floor from bytes and operations",
                "{:.1f} x",
                lambda: above_floor(of(rows, "share")),
            ),
            (
                "frozen trunk, images/s of thawnet",
                "{:,.0f}",
                lambda: [turn["thawnet"] for turn in of(rows, "trunk")["turns"]],
            ),
            ("the same / eager PyTorch float32", "{:.2f} x", lambda: raced(rows, "eager")),
            (
                "the same / eager PyTorch under bfloat16 autocast",
                "{:.2f} x",
                lambda: raced(rows, "eager-bf16"),
            ),
            (
                "`main.py` (`seed`), 10 + 10 epochs, extrapolated from 1 + 2",
                "{:.0f} s",
                lambda: [seed_run(of(rows, "seed")["short"]).total],
            ),
        ]
    )


def _recipe(rows: Rows, recipe: str) -> list[tuple[str, str, Values]]:
    """Return the figures of a recipe, over as many seeds as were done."""

    def each(value: Callable[[Any], float | None]) -> Values:
        return lambda: [value(run) for run in recipe_runs(rows, recipe)]

    return [
        (
            f"`{recipe}` until {100 * REFERENCE:.2f} % on validation, empty caches",
            "{:.1f} s",
            each(lambda run: reached(run["epochs"], REFERENCE)),
        ),
        (
            f"`{recipe}` from open data to its last validation, compiling apart",
            "{:.0f} s",
            each(lambda run: run["epochs"][-1]["elapsed"]),
        ),
        (
            f"wall time of `{recipe}`, test and baseline included, empty caches",
            "{:.0f} s",
            each(lambda run: run["wall"]),
        ),
        (f"test accuracy of `{recipe}`", "{:.2f} %", each(lambda run: 100 * _tested(run))),
    ]
