"""From what was measured to what is claimed: extrapolations, ratios, spreads. Arithmetic alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REFERENCE = 0.7135  # accuracy that the reference's author reports
EPOCHS = 10  # of each phase, in the reference


@dataclass(frozen=True)
class Spread:
    """The median of some repetitions, the least and the most."""

    median: float
    least: float
    most: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Sum up repetitions; there is at least one."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def reached(
    epochs: Sequence[Mapping[str, Any]], accuracy: float, clock: str = "at"
) -> float | None:
    """Return the seconds at which an epoch first passed an accuracy, None if none did.

    clock: 'at', from the start of the process; 'elapsed', of features and both phases alone.
    """
    return next((row[clock] for row in epochs if row["val_accuracy"] > accuracy), None)


@dataclass(frozen=True)
class Extrapolated:
    """Seconds of a whole run, from some timed steps of it.

    once: what comes only once. epochs: of an epoch of each phase, its validation included.
    """

    once: float
    epochs: tuple[float, ...]

    @property
    def total(self) -> float:
        """Of all epochs."""
        return self.once + EPOCHS * sum(self.epochs)


def keras_run(timed: Mapping[str, Any]) -> Extrapolated:
    """Return what all epochs of the Keras script take.

    timed: what it printed with --steps. A first step also waits for the graph to be traced, and
    that of an epoch for the shuffled order to be drawn.
    """
    once = timed["start"] + timed["data"] + timed["model"]
    epochs = []
    for phase in timed["phases"]:
        step = statistics.fmean(phase["train"]["rest"])
        check = statistics.fmean(phase["validate"]["rest"])
        once += phase["train"]["first"] - step - timed["fill"] + phase["validate"]["first"] - check
        steps, checks = (timed[part] / timed["batch"] for part in ("images", "held_out"))
        epochs.append(timed["fill"] + steps * step + checks * check)
    return Extrapolated(once, tuple(epochs))


def seed_run(trial: Mapping[str, Any]) -> Extrapolated:
    """Return what all epochs of `main.py` take, from a run of one and two epochs.

    Its first thawed epoch may compile, so the second stands for the others.
    """
    head = trial["seconds"]["head"]
    before, after = (row["at"] for row in trial["epochs"][1:3])
    thawed = after - before
    return Extrapolated(trial["wall"] - head - 2 * thawed, (head, thawed))


def timm_epoch(timed: Mapping[str, Any]) -> float:
    """Return the seconds of one epoch of the timm loop, without its validation."""
    step = statistics.fmean(timed["train"]["rest"])
    return float(timed["images"] / timed["batch"] * step)


@dataclass(frozen=True)
class Line:
    """Seconds a + b * N, and by how much the worst measured one is off, as a share of itself."""

    a: float
    b: float
    deviation: float


def line(counts: Sequence[float], seconds: Sequence[float]) -> Line:
    """Fit seconds = a + b * count by least squares of the relative errors; two counts or more."""
    # The sum of ((a + b n) / s - 1)^2 is least where both its derivatives are 0.
    rows = [(1 / s, n / s) for n, s in zip(counts, seconds, strict=True)]
    u, v = (sum(row[place] for row in rows) for place in range(2))
    uu = sum(x * x for x, _ in rows)
    uv = sum(x * y for x, y in rows)
    vv = sum(y * y for _, y in rows)
    determinant = uu * vv - uv * uv
    a, b = (u * vv - v * uv) / determinant, (uu * v - uv * u) / determinant
    off = max(abs((a + b * n) / s - 1) for n, s in zip(counts, seconds, strict=True))
    return Line(a, b, off)


def growth(values: Sequence[float]) -> float:
    """Return by how much the largest exceeds the smallest, as a share of it."""
    return max(values) / min(values) - 1
