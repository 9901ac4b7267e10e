"""The figures of RESULTS.md, computed from the rows' measurements."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rows import NETWORKS, PANEL

REFERENCE = 0.7135  # accuracy that the reference's author reports
EPOCHS = 10  # of each phase, in the reference
SPEED_ACCURACY = 0.7525  # of the from-scratch record; `speed` is timed until it passes this

Values = Sequence[float | None]


class MissingRowError(Exception):
    """A row that a figure needs was not measured."""


class Rows(dict[str, Any]):
    """The measurements of each row, by its name."""

    def __missing__(self, name: str) -> Any:
        raise MissingRowError(name)


def lines(kind: str, rows: Rows) -> list[tuple[str, str]]:
    """Return the title and value of each figure whose rows were measured."""
    table = []
    for title, form, values in {"cpu": CPU, "gpu": GPU}[kind]:
        try:
            table.append((title, spread(values(rows), form)))
        except MissingRowError:
            continue
    return table


def spread(values: Values, form: str) -> str:
    """Format repetitions as median, minimum and maximum; None stands for never reached."""
    known = [value for value in values if value is not None]
    if not known:
        return "never reached"
    text = form.format(statistics.median(known))
    if len(known) > 1:
        text += f" ({form.format(min(known))} to {form.format(max(known))}, {len(known)} runs)"
    never = len(values) - len(known)
    return f"{text}; not reached in {never}" if never else text


def reached(
    epochs: Sequence[Mapping[str, Any]], accuracy: float, clock: str = "at"
) -> float | None:
    """Return the seconds after which an epoch first passed an accuracy, None if none did.

    clock: 'at' counts from the start of the process, 'elapsed' only features and both phases.
    """
    return next((row[clock] for row in epochs if row["val_accuracy"] > accuracy), None)


def keras_seconds(timed: Mapping[str, Any]) -> float:
    """Extrapolate the seconds of all epochs of the Keras script from some steps of each phase.

    The first step of a phase includes tracing the graph; that of an epoch includes drawing the
    shuffled order (`fill`).
    """
    seconds = timed["start"] + timed["data"] + timed["model"]
    steps, checks = timed["images"] / timed["batch"], timed["held_out"] / timed["batch"]
    for phase in timed["phases"]:
        step = statistics.fmean(phase["train"]["rest"])
        check = statistics.fmean(phase["validate"]["rest"])
        tracing = phase["train"]["first"] - step + phase["validate"]["first"] - check
        epoch = timed["fill"] + steps * step + checks * check
        seconds += tracing - timed["fill"] + EPOCHS * epoch
    return float(seconds)


def seed_seconds(run: Mapping[str, Any]) -> float:
    """Extrapolate the seconds of all epochs of `main.py` from a run of one and two epochs.

    The first thawed epoch may compile, so the second stands for the others.
    """
    head = run["seconds"]["head"]
    before, after = (row["at"] for row in run["epochs"][1:3])
    thawed = after - before
    return float(run["wall"] + (EPOCHS - 1) * head + (EPOCHS - 2) * thawed)


def keras_over_quick(rows: Rows, accuracy: float) -> Values:
    """Return, per pair, the Keras script's total time over that of `quick` to an accuracy."""
    ratios: list[float | None] = []
    for pair in rows["quick"]["pairs"]:
        at = reached(pair["cold"]["epochs"], accuracy)
        ratios.append(None if at is None else keras_seconds(pair["keras"]) / at)
    return ratios


def deviation(runs: Sequence[Mapping[str, Any]]) -> float:
    """Return the largest relative deviation of a run from seconds = a + b * images.

    The line minimises the sum of the squared relative deviations.
    """
    images = np.array([run["images"] for run in runs])
    seconds = np.array([run["wall"] for run in runs])
    fitted = np.polyval(np.polyfit(images, seconds, 1, w=1 / seconds), images)
    return float(np.abs(fitted / seconds - 1).max())


def timm_ratios(rows: Rows) -> Values:
    """Return, per pair, images/s of the last epoch of `full-gpu` over those of timm's loop."""
    return [
        pair["full"]["epochs"][-1]["images_per_second"]
        / (pair["timm"]["batch"] / statistics.fmean(pair["timm"]["train"]["rest"]))
        for pair in rows["timm"]["pairs"]
    ]


def _growth(values: Sequence[float]) -> Values:
    return [100 * (max(values) / min(values) - 1)]


def _raced(rows: Rows, rival: str) -> Values:
    return [turn["thawnet"] / turn[rival] for turn in rows["trunk"]["turns"]]


def _shares(rows: Rows) -> Values:
    epochs = rows["share"]
    return [100 * a / b for a, b in zip(epochs["compute"], epochs["whole"], strict=True)]


def _steps_over_floor(rows: Rows) -> Values:
    epochs = rows["share"]
    return [seconds / epochs["steps"] / epochs["floor"]["seconds"] for seconds in epochs["compute"]]


def _tested(run: Mapping[str, Any]) -> float:
    return 100 * float(run["metrics"]["test"]["accuracy"])


def _predicted(rows: Rows, size: str) -> Values:
    return [
        100 * (turn["decode"] + turn["network"]) / turn["predict"]
        for turn in rows["predict"][size]["turns"]
    ]


def _runs(
    row: str, start: str, among: Callable[[Any], bool]
) -> Sequence[tuple[str, str, Callable[[Rows], Values]]]:
    """Return the figures of some runs of a row: accuracy, points above the head alone, seconds."""

    def values(value: Callable[[Any], float]) -> Callable[[Rows], Values]:
        return lambda rows: [value(run) for run in rows[row]["runs"] if among(run)]

    def ahead(run: Any) -> float:
        alone = run["baselines"]["logistic_regression_on_frozen_features"]["accuracy"]
        return _tested(run) - 100 * alone

    return (
        (f"{start}, test accuracy", "{:.1f} %", values(_tested)),
        (f"{start}, above the head alone", "{:+.1f}", values(ahead)),
        (f"{start}, wall time", "{:.0f} s", values(lambda run: float(run["wall"]))),
    )


def _few(data: str, photos: int) -> Sequence[tuple[str, str, Callable[[Rows], Values]]]:
    """Return the figures of a data set with so many photos per class."""
    return _runs(
        "few",
        f"`quick` on {photos} photos of each class of {data}",
        lambda run: (run["data"], run["photos"]) == (data, photos),
    )


def _panel(data: str, weights: str) -> Sequence[tuple[str, str, Callable[[Rows], Values]]]:
    """Return the figures of one data set and one network of the panel."""

    def among(run: Mapping[str, Any]) -> bool:
        return (run["data"], run["weights"]) == (data, f"{weights}_imagenet")

    def rival(rows: Rows) -> list[Any]:
        return [rows[f"fastai-{weights}-{data}"]["run"]]

    start = f"fastai's fine_tune(5) on {data} from {weights}"
    return (
        *_runs("panel", f"`quick` on {data} from {weights}", among),
        (f"{start}, test accuracy", "{:.1f} %", lambda rows: [_hits(run) for run in rival(rows)]),
        (f"{start}, wall time", "{:.0f} s", lambda rows: [run["seconds"] for run in rival(rows)]),
    )


def _by_set(
    runs: Sequence[Mapping[str, Any]], value: Callable[[Any], float]
) -> dict[tuple[str, str], float]:
    """Return the mean over seeds for each data set and network of the panel."""
    kinds: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        kinds.setdefault((run["data"], run["weights"]), []).append(value(run))
    return {kind: statistics.fmean(values) for kind, values in kinds.items()}


def _hits(run: Mapping[str, Any]) -> float:
    return 100 * float(run["accuracy"])


def _panel_mean(rows: Rows) -> Values:
    return [statistics.fmean(_by_set(rows["panel"]["runs"], _tested).values())]


def _of_fastai(rows: Rows) -> list[Any]:
    return [rows[f"fastai-{network}-{data}"]["run"] for network in NETWORKS for data in PANEL]


def _ahead_of_fastai(rows: Rows) -> Values:
    ours = _by_set(rows["panel"]["runs"], _tested)
    theirs = _by_set(_of_fastai(rows), _hits)
    return [statistics.fmean(ours[kind] - theirs[kind] for kind in theirs)]


def _share_of_fastai(rows: Rows) -> Values:
    ours = _by_set(rows["panel"]["runs"], lambda run: float(run["wall"]))
    theirs = _by_set(_of_fastai(rows), lambda run: float(run["seconds"]))
    return [100 * sum(ours[kind] for kind in theirs) / sum(theirs.values())]


def _seeds(recipe: str, value: Callable[[Any], float | None]) -> Callable[[Rows], Values]:
    """Return a function that gives a value of each of a recipe's GPU runs, one per seed."""

    def values(rows: Rows) -> Values:
        names = sorted(name for name in rows if name.startswith(f"{recipe}-"))
        return [value(rows[name]["run"]) for name in names or [f"{recipe}-0"]]

    return values


def _of_recipe(recipe: str) -> list[tuple[str, str, Callable[[Rows], Values]]]:
    return [
        (
            f"`{recipe}` until {100 * REFERENCE:.2f} % on validation, empty caches",
            "{:.1f} s",
            _seeds(recipe, lambda run: reached(run["epochs"], REFERENCE)),
        ),
        (
            f"`{recipe}` from open data to its last validation, compiling apart",
            "{:.0f} s",
            _seeds(recipe, lambda run: run["epochs"][-1]["elapsed"]),
        ),
        (
            f"wall time of `{recipe}`, test and baseline included, empty caches",
            "{:.0f} s",
            _seeds(recipe, lambda run: run["wall"]),
        ),
        (f"test accuracy of `{recipe}`", "{:.2f} %", _seeds(recipe, _tested)),
    ]


CPU: Sequence[tuple[str, str, Callable[[Rows], Values]]] = (
    (
        "wall time of the Keras script's 20 epochs / `quick` until it passes "
        f"{100 * REFERENCE:.2f} % on validation, empty caches",
        "{:.1f} x",
        lambda rows: keras_over_quick(rows, REFERENCE),
    ),
    (
        "the same, until `quick` passes the accuracy at which the Keras script ends",
        "{:.1f} x",
        lambda rows: keras_over_quick(rows, rows["keras"]["epochs"][-1]["val_accuracy"]),
    ),
    (
        "wall time of the Keras script / `main.py` (`seed`), 20 epochs each",
        "{:.2f} x",
        lambda rows: [
            keras_seconds(pair["keras"]) / seed_seconds(pair["seed"])
            for pair in rows["seed"]["pairs"]
        ],
    ),
    (
        "wall time of the Keras script, whole, / what is extrapolated from its steps",
        "{:.2f} x",
        lambda rows: [
            rows["keras"]["epochs"][-1]["at"] / keras_seconds(pair["keras"])
            for pair in rows["quick"]["pairs"]
        ],
    ),
    (
        "test accuracy of the Keras script",
        "{:.2f} %",
        lambda rows: [100 * rows["keras"]["epochs"][-1]["val_accuracy"]],
    ),
    ("test accuracy of `main.py`", "{:.2f} %", lambda rows: [_tested(rows["seed"]["whole"])]),
    (
        "test accuracy of `quick`, mean of the seeds",
        "{:.2f} %",
        lambda rows: [statistics.fmean(_tested(pair["cold"]) for pair in rows["quick"]["pairs"])],
    ),
    (
        "wall time of `quick`, test and baseline included, empty caches",
        "{:.0f} s",
        lambda rows: [pair["cold"]["wall"] for pair in rows["quick"]["pairs"]],
    ),
    (
        f"`quick` on a warm cache, until {100 * REFERENCE:.2f} % on validation",
        "{:.0f} s",
        lambda rows: [
            reached(pair["warm"]["epochs"], REFERENCE) for pair in rows["quick"]["pairs"]
        ],
    ),
    (
        "frozen trunk, images/s of thawnet / ONNX Runtime float32, each at its best batch",
        "{:.2f} x",
        lambda rows: _raced(rows, "onnxruntime"),
    ),
    (
        "frozen trunk, images/s of thawnet / eager PyTorch float32, each at its best batch",
        "{:.2f} x",
        lambda rows: _raced(rows, "eager"),
    ),
    (
        "share of a `full` training epoch that is forward, backward and step",
        "{:.1f} %",
        _shares,
    ),
    (
        "whole run against a + b N images, the worst deviation",
        "{:.1f} %",
        lambda rows: [100 * deviation(rows["scale"]["runs"])],
    ),
    (
        "anonymous memory, the most over the least as N grows",
        "{:.1f} %",
        lambda rows: _growth([run["memory"] for run in rows["scale"]["runs"]]),
    ),
    (
        "images/s with every layer training at 96 px, `full-gpu` / timm's loop",
        "{:.1f} x",
        timm_ratios,
    ),
    ("test accuracy of `full`", "{:.2f} %", lambda rows: [_tested(rows["full"]["run"])]),
    ("wall time of `full`", "{:.0f} s", lambda rows: [rows["full"]["run"]["wall"]]),
    (
        "`thawnet predict` of one image, process start to answer, warm disk",
        "{:.2f} s",
        lambda rows: rows["predict"]["starts"],
    ),
    (
        "prediction of 10,000 JPEGs of 32 x 32, images/s / what decoding and the network alone "
        "allow",
        "{:.0f} %",
        lambda rows: _predicted(rows, "small"),
    ),
    (
        "prediction of 10,000 JPEGs of 500 x 375, images/s / what decoding and the network alone "
        "allow",
        "{:.0f} %",
        lambda rows: _predicted(rows, "large"),
    ),
    (
        "`thawnet predict` of 100,000 JPEGs of 32 x 32, anonymous memory",
        "{:.0f} MB",
        lambda rows: [max(rows["predict"]["memory"].values()) / 1e6],
    ),
    (
        "its growth from 10,000 of them, at most over at least",
        "{:.1f} %",
        lambda rows: _growth(rows["predict"]["memory"].values()),
    ),
    *(
        line
        for data in ("flowers", "sign-digits")
        for photos in (5, 10, 20, 40)
        for line in _few(data, photos)
    ),
    *(line for weights in NETWORKS for data in PANEL for line in _panel(data, weights)),
    ("`quick` on the panel, mean test accuracy", "{:.2f} %", _panel_mean),
    ("the same, less fastai's fine_tune(5)", "{:+.1f}", _ahead_of_fastai),
    ("wall time of `quick` on the panel / fastai's", "{:.0f} %", _share_of_fastai),
)
GPU: Sequence[tuple[str, str, Callable[[Rows], Values]]] = (
    *(line for recipe in ("quick", "full", "best", "speed") for line in _of_recipe(recipe)),
    (
        f"`speed` from open data until {100 * SPEED_ACCURACY:.2f} % on validation, compiling "
        "apart, from ImageNet weights (the from-scratch record is 3.96 s on one A100)",
        "{:.2f} s",
        _seeds("speed", lambda run: reached(run["epochs"], SPEED_ACCURACY, "elapsed")),
    ),
    (
        "training images/s of `full-gpu` / the same compiled step on one fixed batch",
        "{:.1f} %",
        _shares,
    ),
    (
        "training images/s of `full-gpu` / timm's loop, the same size, batch and precision",
        "{:.1f} x",
        timm_ratios,
    ),
    ("a step of `full-gpu` / its floor from bytes and operations", "{:.1f} x", _steps_over_floor),
)
