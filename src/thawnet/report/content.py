"""The contents of a report, ready to be drawn; report/gather.py finds them out."""

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
    """Of its file."""
    data: bytes
    """A WebP file of `width` x `height` pixels."""
    width: int
    height: int
    overlay: bytes | None = None
    """A class-activation map as a PNG with a pixel for each of its cells."""
    box: Box = (0.0, 0.0, 1.0, 1.0)
    """Where the map lies on the picture, enlarged smoothly."""


@dataclass(frozen=True)
class Rival:
    """Something that a run is compared with."""

    name: str
    accuracy: float
    interval: tuple[float, float] | None = None
    """The 95 % interval of the accuracy, where it is known."""
    note: str = ""
    own: float | None = None
    """The run's own accuracy on the same images, where these are not those of the headline."""


@dataclass(frozen=True)
class ClassRow:
    """Recall and precision of one class."""

    name: str
    images: int
    recall: float
    precision: float | None
    """None where no image was called so."""
    confused_with: str
    """The class that most of its mistakes are called."""
    confusions: int
    """The number of those; 0 where there are no mistakes."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """A confusion matrix, or the rows and columns of some classes of it."""

    names: list[str]
    """Of the classes, ordered so that those which are confused stand side by side."""
    counts: NDArray[np.int64]
    """Images of the row's class that are called the column's, (classes, classes)."""
    images: NDArray[np.int64]
    """Images of each class, (classes,), also of those called something left out."""


@dataclass(frozen=True)
class Pair:
    """Images of the class `true` that are called `predicted`, with pictures of some."""

    true: str
    predicted: str
    count: int
    images: int
    """Of the class `true` in all."""
    pictures: list[Picture]


@dataclass(frozen=True)
class Example:
    """One image of the class `true` that is called `predicted`, and both probabilities."""

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


# Groups of copies, with a picture of each image that can be read.
Copies = list[tuple[Group, list[tuple[Member, Picture | None]]]]


@dataclass(frozen=True)
class More:
    """Whether more photos would help, by the learning curve."""

    curve: tuple[LearningPoint, ...]
    advice: str
    """A sentence or two."""
    classes: list[tuple[str, float, float]]
    """Those whose recall gained most from the second half: names, recall with half and with all."""


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    title: str
    result: Result
    history: list[Validation]
    validated_on: str
    """'validation' or 'test'."""
    flattered: bool
    """Whether the images measured on chose the epoch."""
    more: More | None
    """None where the head was not solved."""
    rivals: list[Rival]
    facts: list[tuple[str, str]]
    """Labels and values about training, data and machine."""
    seconds: list[tuple[str, float]]
    """Of each stage of the run, one after another."""
    classes: list[ClassRow]
    confusion: ConfusionMatrix
    pairs: list[Pair]
    """The most frequent confusions."""
    mistakes: list[Example]
    """The most confident ones first."""
    hits: list[Example]
    """The least confident ones first."""
    uncalibrated: list[Bin]
    calibrated: list[Bin]
    training_images: int
    suspects: list[Suspect] | None
    """The most suspect of the training images, most suspect first."""
    audit: Audit | None
    copies: Copies
    """The worst copies that the audit found."""
    missing: list[str]
    """Sentences about what is not shown, and why."""
    timings: dict[str, float]
    """Seconds that each section took, by its key in page.SECTIONS; others are told at the end."""
