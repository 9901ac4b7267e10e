"""The contents of a report, ready to be rendered; report/gather.py collects them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..audit.contents import Audit, Group, Member
from ..metrics.calibration import Bin
from ..metrics.result import LearningPoint, Result, Validation

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of a picture


@dataclass(frozen=True)
class Picture:
    """A small copy of an image."""

    name: str
    """The file's name."""
    data: bytes
    """A WebP file of `width` x `height` pixels."""
    width: int
    height: int
    overlay: bytes | None = None
    """A class-activation map as a PNG, one pixel per cell."""
    box: Box = (0.0, 0.0, 1.0, 1.0)
    """Where the map is drawn on the picture, smoothly enlarged."""


@dataclass(frozen=True)
class Rival:
    """A baseline that a run is compared with."""

    name: str
    accuracy: float
    interval: tuple[float, float] | None = None
    """The 95 % interval of the accuracy, if known."""
    note: str = ""
    own: float | None = None
    """The run's accuracy on the same images, if they are not those of the headline."""


@dataclass(frozen=True)
class ClassRow:
    """Recall and precision of one class."""

    name: str
    images: int
    recall: float
    precision: float | None
    """None if no image was predicted as this class."""
    confused_with: str
    """The class most often predicted by mistake."""
    confusions: int
    """The number of those mistakes; 0 if there are none."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """A confusion matrix of all classes, or its rows and columns of some."""

    names: list[str]
    """Class names, ordered so that confused classes are adjacent."""
    counts: NDArray[np.int64]
    """Images of the row's class predicted as the column's, (classes, classes)."""
    images: NDArray[np.int64]
    """Images of each class, (classes,), including those predicted as a class left out."""


@dataclass(frozen=True)
class Pair:
    """Images of class `true` that were predicted as `predicted`, with pictures of some."""

    true: str
    predicted: str
    count: int
    images: int
    """All images of class `true`."""
    pictures: list[Picture]


@dataclass(frozen=True)
class Example:
    """One image of class `true` that was predicted as `predicted`, with both probabilities."""

    picture: Picture
    true: str
    predicted: str
    probability: float
    probability_of_true: float


@dataclass(frozen=True)
class Suspect:
    """A training image whose label may be wrong."""

    picture: Picture
    label: str
    suggested: str
    margin: float
    """See label_errors.margins."""


# Groups of copies, each with its images, and a picture of those that can be read.
Copies = list[tuple[Group, list[tuple[Member, Picture | None]]]]


@dataclass(frozen=True)
class More:
    """Whether more photos would help, judging by the learning curve."""

    curve: tuple[LearningPoint, ...]
    advice: str
    """A sentence or two."""
    classes: list[tuple[str, float, float]]
    """Classes that gained most by doubling the images: name, recall with half, recall with all."""


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    title: str
    result: Result
    history: list[Validation]
    validated_on: str
    """'validation', 'held-out' or 'test'."""
    flattered: bool
    """Whether the epoch or penalty was selected on the same images that are measured on."""
    more: More | None
    """None if the head was not solved, as there is no learning curve then."""
    rivals: list[Rival]
    facts: list[tuple[str, str]]
    """Labels and values about training, data and machine."""
    seconds: list[tuple[str, float]]
    """Names and seconds of the stages of the run, in order."""
    classes: list[ClassRow]
    confusion: ConfusionMatrix
    pairs: list[Pair]
    """The most frequent confusions."""
    mistakes: list[Example]
    """Most confident first."""
    hits: list[Example]
    """Least confident first."""
    uncalibrated: list[Bin]
    calibrated: list[Bin]
    training_images: int
    suspects: list[Suspect] | None
    """Training images with suspect labels, most suspect first."""
    audit: Audit | None
    copies: Copies
    """The worst copies that the audit found."""
    missing: list[str]
    """Sentences that say what is not shown, and why."""
    timings: dict[str, float]
    """Seconds that each section took, by key of page.SECTIONS; other keys are listed at the end."""
