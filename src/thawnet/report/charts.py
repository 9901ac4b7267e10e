"""Geometry of a report's charts, which templates/charts.html draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..metrics.result import LearningPoint, Validation
from .markup import percent

WIDTH, HEIGHT = 440, 270
_LEFT, _TOP, _RIGHT, _BOTTOM = 54, 36, 24, 44

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A linear axis that maps values `least` to `most` to pixels `start` to `end`."""

    least: float
    most: float
    start: float
    end: float
    label: Callable[[float], str]

    def __call__(self, value: float) -> float:
        """Return the pixel position of a value."""
        share = (value - self.least) / ((self.most - self.least) or 1.0)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixel positions and labels of three to six round values."""
        rough = (self.most - self.least or 1.0) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first, last = math.ceil(self.least / step - 1e-9), math.floor(self.most / step + 1e-9)
        values = [round(number * step, 9) for number in range(first, last + 1)]
        return [(self(value), self.label(value)) for value in values]


def _across(least: float, most: float, label: Callable[[float], str]) -> Axis:
    return Axis(least, most, _LEFT, WIDTH - _RIGHT, label)


def _up(most: float, label: Callable[[float], str]) -> Axis:
    return Axis(0.0, most, HEIGHT - _BOTTOM, _TOP, label)


def _round_percent(share: float) -> str:
    return percent(share, 0)


# The axes of a reliability diagram.
SHARE_ACROSS, SHARE_UP = _across(0.0, 1.0, _round_percent), _up(1.0, _round_percent)


@dataclass(frozen=True)
class History:
    """A metric of every validation over epochs, as points in pixels."""

    title: str
    description: str
    x: Axis
    y: Axis
    training: Points
    validated: Points
    kept: Points
    thaw: float | None
    """X position of the thaw in pixels, None if there is none."""


def accuracy_history(rows: Sequence[Validation], validated_on: str) -> History:
    """Return the chart of accuracy over epochs. validated_on: see content.Report."""
    training = [row.train_accuracy for row in rows]
    validated = [row.val_accuracy for row in rows]
    y = _up(min(1.0, max(*training, *validated) * 1.1), _round_percent)
    start = f"Accuracy by epoch. On {validated_on} it goes"
    return _history(rows, "Accuracy", start, percent, y, training, validated)


def loss_history(rows: Sequence[Validation], validated_on: str) -> History:
    """Return the chart of loss over epochs. validated_on: see content.Report."""
    training = [row.train_loss for row in rows]
    validated = [row.val_loss for row in rows]
    y = _up(max(*training, *validated) * 1.05, "{:g}".format)
    start = f"Cross-entropy in nats by epoch. On {validated_on} it goes"
    return _history(rows, "Loss (nats)", start, "{:.2f}".format, y, training, validated)


@dataclass(frozen=True)
class LearningCurve:
    """The head's accuracy by number of training images, as points in pixels."""

    description: str
    x: Axis
    y: Axis
    points: Points


def learning_curve(rows: Sequence[LearningPoint]) -> LearningCurve:
    """Return the chart of the head's accuracy by number of training images."""
    x = _across(0.0, float(rows[-1].images), "{:g}".format)
    y = _up(min(1.0, max(row.accuracy for row in rows) * 1.15), _round_percent)
    told = ", ".join(f"{percent(row.accuracy)} from {row.images:,}" for row in rows)
    points = [(x(row.images), y(row.accuracy)) for row in rows]
    return LearningCurve(f"Accuracy of the head alone by training images: {told}.", x, y, points)


def _history(
    rows: Sequence[Validation],
    title: str,
    description: str,
    figure: Callable[[float], str],
    y: Axis,
    training: list[float],
    validated: list[float],
) -> History:
    epochs = [row.epoch for row in rows]
    x = _across(min(0.0, *epochs), max(epochs), "{:g}".format)
    marked = [position for position, row in enumerate(rows) if row.kept]
    last = marked[-1] if marked else len(rows) - 1
    head = sum(row.phase == 0 for row in rows)
    points = [(x(epoch), y(value)) for epoch, value in zip(epochs, validated, strict=True)]
    return History(
        title,
        f"{description} from {figure(validated[0])} to {figure(validated[last])} "
        f"at epoch {epochs[last]:g}.",
        x,
        y,
        training=[(x(epoch), y(value)) for epoch, value in zip(epochs, training, strict=True)],
        validated=points,
        kept=[points[position] for position in marked],
        thaw=x(epochs[head - 1] + min(0.5, (epochs[head] - epochs[head - 1]) / 2))
        if 0 < head < len(rows)
        else None,
    )
