"""What a report of a run holds, ready to be drawn; who finds it out is report/gather.py."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..metrics.calibration import Bin
from ..metrics.result import CalibrationErrors, Validation

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of a picture


@dataclass(frozen=True)
class Picture:
    """A small copy of an image.

    name: of its file. data: the encoded pixels, `width` x `height`, of the media type `kind`, such
    as image/webp. overlay: a class-activation map as a PNG with a pixel for each of its places, to
    be enlarged smoothly over `box` of the picture; None where there is none.
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
    """What a run is held against.

    accuracy: in [0, 1], with its 95 % `interval` where one is known. note: what else is to be
    known of it, a few words. own: the run's own accuracy on the same images, where these are not
    those of the headline.
    """

    name: str
    accuracy: float
    interval: tuple[float, float] | None = None
    note: str = ""
    own: float | None = None


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised.

    images: of the class. recall: the share of them that is called so. precision: the share of all
    images called so that is of the class, None where none is called so. confused_with: what most
    of its mistakes are called, `confusions` images; None where there are no mistakes.
    """

    name: str
    images: int
    recall: float
    precision: float | None
    confused_with: str | None
    confusions: int


@dataclass(frozen=True)
class Confusion:
    """Which classes are taken for which.

    names: of the classes, ordered so that those which are confused stand side by side. counts:
    images of the row's class that are called the column's, (classes, classes), in that order.
    """

    names: list[str]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Images of the class `true` that are called `found`.

    count: how many are, of the `images` of the class. pictures: of some of them.
    """

    true: str
    found: str
    count: int
    images: int
    pictures: list[Picture]


@dataclass(frozen=True)
class Example:
    """An image of the class `true` that is called `found`.

    probability: of `found`, and probability_of_true: of `true`, in [0, 1]. picture: None where the
    data is not at hand.
    """

    name: str
    picture: Picture | None
    true: str
    found: str
    probability: float
    probability_of_true: float


@dataclass(frozen=True)
class Reliability:
    """Confidence beside accuracy, before and after logits are divided by the temperature.

    fitted_on: validation images that the temperature was fitted on, 0 where none was.
    """

    temperature: float
    before: list[Bin]
    after: list[Bin]
    errors: CalibrationErrors
    fitted_on: int


@dataclass(frozen=True)
class Suspect:
    """A training image whose class may be wrong.

    margin: by how much the class `suggested` is preferred to the one `given`, in standard
    deviations of that over all images. picture: None where the data is not at hand.
    """

    name: str
    picture: Picture | None
    given: str
    suggested: str
    margin: float


@dataclass(frozen=True)
class Suspects:
    """The most suspect of the `images` that were looked at, most suspect first."""

    images: int
    most: list[Suspect]


@dataclass(frozen=True)
class Copies:
    """Images that show one picture.

    kind: how alike they are, and scope: where they are, both in words. members: part, class and
    picture of each, None where the data is not at hand.
    """

    kind: str
    scope: str
    members: list[tuple[str, str, Picture | None]]


@dataclass(frozen=True)
class DataAudit:
    """What is in the data.

    header, rows: a table of its parts, the first column naming them. smallest, largest: classes
    and their training images, the most extreme first. findings: what was found and what to do
    about it, most important first. copies: the worst of `groups` in all, worst first. notes:
    sentences below the table.
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
    """Everything that a report shows.

    title: network, data and recipe. standing: how it stands against logistic regression, a sentence
    without its full stop. flattered: whether the images measured on chose the epoch. part: what was
    measured on, 'test' or 'validation'. accuracy, with its 95 % interval, top_5 and balanced
    accuracy: in [0, 1], over `images` images. facts: labels and values about training, data and
    machine. validated_on: the part that `history` is about. seconds: of each stage of the run, one
    after another. missing: sentences about what is not shown, and why. made: seconds that finding
    out each section took, by its key in page.SECTIONS; under any other name it is told at the end.
    """

    title: str
    part: str
    accuracy: float
    interval: tuple[float, float]
    images: int
    top_5: float
    balanced: float
    standing: str
    flattered: bool
    rivals: list[Rival]
    facts: list[tuple[str, str]]
    history: list[Validation]
    validated_on: str
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
