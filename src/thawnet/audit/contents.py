"""The contents of an audit: parts of a data set, groups of copies, findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Scope = Literal["parts and classes", "parts", "classes", "one class"]
SCOPES: tuple[Scope, ...] = ("parts and classes", "parts", "classes", "one class")


@dataclass(frozen=True)
class Part:
    """Counts and sizes of one part. Everything but `images` is about what can be read."""

    name: str
    images: int
    stored_bytes: int
    """As they lie on disk."""
    counts: dict[str, int]
    """Images of each class."""
    width: tuple[int, int, int]
    """Smallest, median and largest, in pixels, upright."""
    height: tuple[int, int, int]
    smaller: int
    """Images whose short side is below the network's input."""
    cut: int
    """Images of which a crop of the middle shows less than two thirds."""
    tiny: int
    """Images too small to look for near copies of."""
    modes: dict[str, int]
    """Images of each of Pillow's modes."""
    formats: dict[str, int]
    """Images of each of Pillow's formats."""
    turned: int
    """Images that EXIF turns."""
    animated: tuple[str, ...]
    """Names of images with further frames."""
    plain: tuple[str, ...]
    """Names of images of one colour or a gradient."""
    broken: tuple[tuple[str, str], ...]
    """Name and reason of what cannot be read."""


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a group."""

    part: str
    label: str
    name: str


@dataclass(frozen=True)
class Group:
    """Images that show one picture."""

    scope: Scope
    """The worst of them: in two parts under two classes, in two parts, in two classes, or in one
    class twice."""
    exact: bool
    """The same pixels; else nearly the same."""
    similarity: float
    """Of the least similar pair that holds the group together, 1 when exact."""
    mirrored: bool
    """Some are mirror images of others."""
    pictures: tuple[Member, ...]


@dataclass(frozen=True)
class Finding:
    """Something worth a person's time."""

    kind: str
    """Its name for programs."""
    what: str
    todo: str
    """The remedy."""


@dataclass(frozen=True)
class Audit:
    """The contents of a data set, its copies, and what to do about them."""

    name: str
    classes: tuple[str, ...]
    size: int
    """Pixels a side of the network's input that sizes were compared with."""
    parts: tuple[Part, ...]
    split_off: dict[str, int]
    """Images that thawnet would split off train as 'val' and 'test', where the data lacks them."""
    folded: bool
    """Whether thawnet would hold none back, but let few images validate each other in folds."""
    straddling: int
    """Groups with images on both sides of the split that gives the test part."""
    groups: tuple[Group, ...]
    """Every duplicate, worst first."""
    notes: tuple[str, ...]
    """Remarks of the source when it was opened."""
    unusable: tuple[str, ...] = ()
    """Why a part cannot be measured on, for each such part."""
    findings: tuple[Finding, ...] = ()
    """Most important first."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the findings may name: classes, and the images they point out."""
        told = [
            [*part.animated, *part.plain, *(name for name, _ in part.broken)] for part in self.parts
        ]
        return (*self.classes, *(name for names in told for name in names))

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return asdict(self)
