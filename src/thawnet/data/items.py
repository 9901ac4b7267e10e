"""Labelled images that are read one by one, and the data sets that they form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.text import fault_of_name
from .names import Names

PARTS = ("train", "val", "test")
VALIDATION_NAMES = ("val", "valid", "validation")
# What people call the parts, in folders, tables and shards alike.
PART_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(VALIDATION_NAMES, "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
MOST_MISSING = 0.5  # share of a table's files; above it the paths are wrong, not some files lost

Raw = bytes | NDArray[np.uint8]

# (what is done, to how many images) -> a bar, entered for the function that advances it.
Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def unwatched(_title: str, _images: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda done: None


@dataclass(frozen=True)
class Items:
    """Labelled images that are read one by one. No field holds Python objects for each image."""

    names: Sequence[str]
    """For messages and lists."""
    labels: NDArray[np.int64]
    """Class positions, (n,)."""
    hashes: NDArray[np.uint8]
    """SHA-256 of each image as stored, (n, 32): exact duplicates share one."""
    read: Callable[[int], Raw]
    """From a position to encoded bytes, or to a (height, width, 3) uint8 array."""
    groups: NDArray[np.int64] | None = None
    """Groups that the user keeps together (a patient, a video), (n,); -1 for none."""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: NDArray[np.int64]) -> Items:
        """Return the images at `rows`, in that order."""
        return Items(
            names=Names(self.names[row] for row in rows),
            labels=self.labels[rows],
            hashes=self.hashes[rows],
            read=lambda position: self.read(int(rows[position])),
            groups=None if self.groups is None else self.groups[rows],
        )

    @cached_property
    def fingerprint(self) -> str:
        """Name the content: every image's hash and label, in order."""
        digest = hashlib.sha256(self.labels.tobytes())
        digest.update(np.ascontiguousarray(self.hashes).data)
        return digest.hexdigest()[:16]

    @property
    def ties(self) -> NDArray[np.int64]:
        """See `tied`: what must stay on one side of a split, (n,) int64."""
        return tied(self.hashes, self.groups)


@dataclass(frozen=True)
class Source:
    """The data at DATA.

    Raises DataError for a class whose name is too long or holds control characters.
    """

    name: str
    classes: tuple[str, ...]
    parts: frozenset[str]
    open_part: Callable[[str], Items]
    """Reads the list of one part. Nothing of a part is touched before, so a run that never asks for
    'test' never opens it."""
    mirror_safe: bool = True
    """False where a mirrored image means something else, as for digits."""
    notes: tuple[str, ...] = ()
    superclasses: dict[str, str] | None = None
    """The group that the data's author put each class in, None where there are none."""
    check_part: Callable[[str], None] = lambda part: None
    """Raises DataError where names and labels alone show that nothing can be measured on a part."""
    unlabelled: tuple[str, ...] = ()
    """Folders of images without classes, such as the test/ of a competition: no parts."""

    def __post_init__(self) -> None:
        fault = next(filter(None, map(fault_of_name, self.classes)), None)
        if fault is not None:
            raise DataError(f"'{self.name}': {fault}; give it another")

    def require_train(self) -> None:
        """Raise DataError where there are only images to measure on."""
        if "train" not in self.parts:
            there = " and ".join(sorted(self.parts))
            raise DataError(
                f"'{self.name}' names no images to train on, only {there}; thawnet evaluate "
                "measures a network on these"
            )

    def opened_once(self) -> Source:
        """Return the same source, which reads the list of each part once at most."""
        return replace(self, open_part=cache(self.open_part))


def sha256_rows(images: Iterable[bytes]) -> NDArray[np.uint8]:
    """Return the SHA-256 of each image, (n, 32) uint8."""
    joined = bytearray()
    for image in images:
        joined += hashlib.sha256(image).digest()
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def spread_over(count: int, most: int) -> NDArray[np.int64]:
    """Return at most so many of `count` positions, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))


def tied(hashes: NDArray[np.uint8], groups: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Number the sets of images that must stay on one side of a split, (n,) int64.

    Exact duplicates (one hash) stay together, and so does a group (groups, (n,) int64, -1 for
    none); a duplicate that two groups share ties both. Sets are numbered as they first appear.
    """
    # A set of copies is a number from here on: 32 bytes take room, and compare slowly.
    words = np.ascontiguousarray(hashes).view(np.int64).T  # (4, n)
    order = np.lexsort(words)
    fresh = np.zeros(len(order), bool)
    for word in words:
        fresh[1:] |= np.diff(word[order]) != 0
    ties = np.empty(len(order), np.int64)
    ties[order] = np.cumsum(fresh)
    if groups is not None and (groups >= 0).any():
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        # A graph of sets of copies and of groups; an image of a group joins one of each.
        member = np.flatnonzero(groups >= 0)
        copies = int(ties.max()) + 1
        nodes = copies + int(groups.max()) + 1
        ends = (ties[member], copies + groups[member])
        ones = np.ones(len(member), np.int8)
        graph = coo_array((ones, ends), shape=(nodes, nodes))
        _, component = connected_components(graph, directed=False)
        ties = component[ties]
    _, first, ties = np.unique(ties, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[ties].astype(np.int64)
