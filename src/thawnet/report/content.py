"""What a report of a run holds, ready to be drawn; who finds it out is training/reporting.py."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of a picture


@dataclass(frozen=True)
class Picture:
    """An image, small.

    name: its file's. data: encoded, of the type `kind`, such as image/webp. width, height: its
    pixels. overlay: a class-activation map as a PNG of as many pixels as the map has places, to be
    enlarged smoothly over `box` of the picture; None where there is none.
    """

    name: str
    data: bytes
    kind: str
    width: int
    height: int
    overlay: bytes | None = None
    box: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Rival:
    """An accuracy, 0 to 1, that a run is held against, and what it is."""

    name: str
    accuracy: float
    interval: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Epoch:
    """One validation: accuracies in [0, 1], losses in nats.

    epoch: those until then, may be a fraction. phase: 0 the head alone, 1 thawed. kept: whether its
    phase ended with this network.
    """

    epoch: float
    phase: int
    train_accuracy: float
    val_accuracy: float
    train_loss: float
    val_loss: float
    kept: bool


@dataclass(frozen=True)
class ClassScore:
    """How one class fares. recall: share of its images that are found, precision: share of those
    called so that are; None where nothing was called so. confused_with: what most of its mistakes
    are called, and how many those are.
    """

    name: str
    images: int
    recall: float
    precision: float | None
    confused_with: str | None
    confusions: int


@dataclass(frozen=True)
class Confusion:
    """Who is taken for whom. names: of the classes, those confused beside each other. counts: images
    of (row's class, called column's class), in that order.
    """

    names: list[str]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Images of `true` that are called `found`: how many, of how many images of the class."""

    true: str
    found: str
    count: int
    images: int
    pictures: list[Picture]


@dataclass(frozen=True)
class Example:
    """An image, its class, what it is called, and both probabilities, 0 to 1. picture: None where
    the data is not at hand.
    """

    name: str
    picture: Picture | None
    true: str
    found: str
    probability: float
    probability_of_true: float


@dataclass(frozen=True)
class Bin:
    """Images of about the same confidence: their mean confidence, share of hits, and number."""

    confidence: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy before and after the temperature, and the calibration errors."""

    temperature: float
    before: list[Bin]
    after: list[Bin]
    error_before: float
    error_after: float


@dataclass(frozen=True)
class Suspect:
    """An image of the training data whose class may be wrong. margin: by how much another class is
    preferred to the given one, in standard deviations of that over all images.
    """

    name: str
    picture: Picture | None
    given: str
    suggested: str
    margin: float


@dataclass(frozen=True)
class Suspects:
    """The most suspect of so many images looked at."""

    images: int
    most: list[Suspect]


@dataclass(frozen=True)
class Copies:
    """Images that show one picture. kind: how alike they are, in words. members: part, class and
    image of each.
    """

    kind: str
    scope: str
    members: list[tuple[str, str, Picture | None]]


@dataclass(frozen=True)
class DataAudit:
    """What is in the data. header, rows: a table of its parts. findings: what was found and what to
    do, most important first. copies: worst first, of `groups` in all. notes: lines for a person.
    """

    name: str
    classes: int
    images: int
    header: list[str]
    rows: list[list[str]]
    smallest: list[tuple[str, int]]
    largest: list[tuple[str, int]]
    findings: list[tuple[str, str]]
    copies: list[Copies]
    groups: int
    notes: list[str]


@dataclass(frozen=True)
class Report:
    """Everything. title: data, backbone, recipe. part: what was measured on, 'test' or 'validation'.

    accuracy, top_5, balanced: in [0, 1], on so many `images`. facts: label and value, about training,
    data and machine. held_out: what `history` validates on. seconds: of each stage of the run.
    missing: sentences about what is not shown and why. made: seconds that each section took to find.
    """

    title: str
    part: str
    accuracy: float
    interval: tuple[float, float]
    images: int
    top_5: float
    balanced: float
    rivals: list[Rival]
    facts: list[tuple[str, str]]
    history: list[Epoch]
    held_out: str
    seconds: list[tuple[str, float]]
    classes: list[ClassScore]
    confusion: Confusion
    pairs: list[Pair]
    mistakes: list[Example]
    hits: list[Example]
    reliability: Reliability
    suspects: Suspects | None
    audit: DataAudit | None
    missing: list[str] = field(default_factory=list)
    made: list[tuple[str, float]] = field(default_factory=list)
