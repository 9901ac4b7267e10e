"""The contents of an audit: parts of a data set, groups of copies, findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Scope = Literal["parts and classes", "parts", "classes", "one class"]
SCOPES: tuple[Scope, ...] = ("parts and classes", "parts", "classes", "one class")


@dataclass(frozen=True)
class Part:
    """Counts and sizes of one part. Everything but `images` is about what can be read.

    counts: images of each class. stored_bytes: as they lie on disk. width, height: smallest,
    median and largest, in pixels, upright. smaller: images whose short side is below the
    network's input. tiny: images too small to look for near copies of. modes, formats: how many
    images have which, in Pillow's names. turned: images that EXIF turns. animated: names of
    images with further frames. plain: names of images of one colour or a gradient. broken: name
    and reason of what cannot be read.
    """

    name: str
    images: int
    stored_bytes: int
    counts: dict[str, int]
    width: tuple[int, int, int]
    height: tuple[int, int, int]
    smaller: int
    tiny: int
    modes: dict[str, int]
    formats: dict[str, int]
    turned: int
    animated: tuple[str, ...]
    plain: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a group."""

    part: str
    label: str
    name: str


@dataclass(frozen=True)
class Group:
    """Images that show one picture.

    scope: the worst that they do: the same picture in two parts under two classes, in two parts,
    under two classes, or twice in a class. exact: the same pixels; else nearly the same.
    similarity: of the least similar pair that holds the group together, 1 when exact.
    mirrored: some are mirror images of others.
    """

    scope: Scope
    exact: bool
    similarity: float
    mirrored: bool
    pictures: tuple[Member, ...]


@dataclass(frozen=True)
class Finding:
    """One thing found, `what`, and what to do about it, `todo`; `kind` names it for programs."""

    kind: str
    what: str
    todo: str


@dataclass(frozen=True)
class Audit:
    """What `inspect` found.

    size: pixels a side of the network's input that sizes were compared with. split_off: images
    that thawnet would split off train as a test part, where the data has none. groups: every
    duplicate, worst first. straddling: groups with images on both sides of that split.
    findings: what to do, most important first. notes: what the source said on opening. unusable:
    why a part cannot be measured on, where one cannot.
    """

    name: str
    classes: tuple[str, ...]
    size: int
    parts: tuple[Part, ...]
    split_off: int
    straddling: int
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    unusable: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return asdict(self)
