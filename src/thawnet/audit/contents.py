"""The contents of an audit: parts of a data set, groups of copies, findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Scope = Literal["parts and classes", "parts", "classes", "one class"]
SCOPES: tuple[Scope, ...] = ("parts and classes", "parts", "classes", "one class")


@dataclass(frozen=True)
class Part:
    """Counts and sizes of one part: of its readable images, except for `images` and `broken`."""

    name: str
    images: int
    stored_bytes: int
    """As stored, before decoding."""
    counts: dict[str, int]
    """Images of each class."""
    width: tuple[int, int, int]
    """Smallest, median and largest, in pixels, upright."""
    height: tuple[int, int, int]
    smaller: int
    """Images whose short side is below the network's input."""
    cut: int
    """Images that lose more than a third to a centre crop."""
    tiny: int
    """Images too small to search for near copies."""
    modes: dict[str, int]
    """Images of each Pillow mode."""
    formats: dict[str, int]
    """Images of each Pillow format."""
    turned: int
    """Images that EXIF rotates or mirrors."""
    animated: tuple[str, ...]
    """Names of images with more than one frame."""
    plain: tuple[str, ...]
    """Names of images of one colour or a gradient."""
    broken: tuple[tuple[str, str], ...]
    """Name of each unreadable image, and the reason."""


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a group."""

    part: str
    label: str
    name: str


@dataclass(frozen=True)
class Group:
    """Images that show the same picture."""

    scope: Scope
    """The worst of any two: in two parts under two classes, in two parts, in two classes, or twice
    in one class."""
    exact: bool
    """Whether they have exactly the same pixels."""
    similarity: float
    """Similarity of the least similar pair that connects the group, 1 if exact."""
    mirrored: bool
    """Whether some are mirror images of others."""
    pictures: tuple[Member, ...]


@dataclass(frozen=True)
class Finding:
    """A problem that the user should look at."""

    kind: str
    """Its machine-readable name."""
    what: str
    todo: str
    """The remedy."""


@dataclass(frozen=True)
class Audit:
    """The contents of a data set, its copies, and what to do about them."""

    name: str
    classes: tuple[str, ...]
    size: int
    """Side of the network's input in pixels, with which sizes were compared."""
    parts: tuple[Part, ...]
    split_off: dict[str, int]
    """Images that thawnet would split off train as 'val' and 'test', where the data lacks them."""
    folded: bool
    """Whether thawnet would hold none back but cross-validate in folds, as images are few."""
    straddling: int
    """Groups with images on both sides of the split that gives the test part."""
    groups: tuple[Group, ...]
    """All groups of duplicates, worst first."""
    notes: tuple[str, ...]
    """Remarks of the source when it was opened."""
    unusable: tuple[str, ...] = ()
    """The reason for each part that cannot be measured on."""
    findings: tuple[Finding, ...] = ()
    """Most important first."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that findings may contain: of classes, and of the images they point out."""
        told = [
            [*part.animated, *part.plain, *(name for name, _ in part.broken)] for part in self.parts
        ]
        return (*self.classes, *(name for names in told for name in names))

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return asdict(self)
