"""Labelled images that are read one by one, and the data sets made of them."""

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
# Common names of the parts, in folders, tables and shards alike.
PART_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(VALIDATION_NAMES, "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
MOST_MISSING = 0.5  # share of a table's files; above it, the paths must be wrong

Raw = bytes | NDArray[np.uint8]

# (title, number of images) -> a progress bar; entering it gives the function that advances it.
Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def unwatched(_title: str, _images: int) -> Iterator[Callable[[int], None]]:
    """Show no progress bar."""
    yield lambda done: None


@dataclass(frozen=True)
class Items:
    """Labelled images that are read one by one; no field holds a Python object per image."""

    names: Sequence[str]
    """Image names, for messages and lists."""
    labels: NDArray[np.int64]
    """Class indices, (n,)."""
    hashes: NDArray[np.uint8]
    """SHA-256 of each image as stored, (n, 32); equal for exact duplicates."""
    read: Callable[[int], Raw]
    """Returns the image at a position: encoded bytes, or a (height, width, 3) uint8 array."""
    groups: NDArray[np.int64] | None = None
    """The user's groups (a patient, a video), kept together by splits, (n,); -1 for none."""

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
        """Fingerprint of every image's hash and label, in order."""
        digest = hashlib.sha256(self.labels.tobytes())
        digest.update(np.ascontiguousarray(self.hashes).data)
        return digest.hexdigest()[:16]

    @property
    def ties(self) -> NDArray[np.int64]:
        """Numbers of the sets that a split keeps together, (n,) int64; see `tied`."""
        return tied(self.hashes, self.groups)


@dataclass(frozen=True)
class Source:
    """A data set: its classes, its parts, and how to open each part.

    Raises DataError if a class name is too long or holds control characters.
    """

    name: str
    classes: tuple[str, ...]
    parts: frozenset[str]
    open_part: Callable[[str], Items]
    """Lists the images of one part. A part is not touched before that, so a run that never opens
    'test' never reads it."""
    mirror_safe: bool = True
    """False if mirroring changes what an image means, as for digits."""
    notes: tuple[str, ...] = ()
    superclasses: dict[str, str] | None = None
    """The superclass that the data's author gave each class; None if there are none."""
    check_part: Callable[[str], None] = lambda part: None
    """Raises DataError if names and labels alone show that a part cannot be measured on."""
    unlabelled: tuple[str, ...] = ()
    """Folders of images without classes, such as a competition's test/. They are not parts."""

    def __post_init__(self) -> None:
        fault = next(filter(None, map(fault_of_name, self.classes)), None)
        if fault is not None:
            raise DataError(f"'{self.name}': {fault}; give it another")

    def require_train(self) -> None:
        """Raise DataError if there are no images to train on."""
        if "train" not in self.parts:
            there = " and ".join(sorted(self.parts))
            raise DataError(
                f"'{self.name}' names no images to train on, only {there}; thawnet evaluate "
                "measures a network on these"
            )

    def opened_once(self) -> Source:
        """Return a copy that lists the images of each part at most once."""
        return replace(self, open_part=cache(self.open_part))


def sha256_rows(images: Iterable[bytes]) -> NDArray[np.uint8]:
    """Return the SHA-256 of each image, (n, 32) uint8."""
    joined = bytearray()
    for image in images:
        joined += hashlib.sha256(image).digest()
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def spread_over(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of `count` positions, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))


def tied(hashes: NDArray[np.uint8], groups: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Number the sets of images that must stay on one side of a split, (n,) int64.

    Exact duplicates (equal hashes) stay together, and so does a group (groups: (n,) int64, -1 for
    none). Two groups that share a duplicate form one set. Sets are numbered by first appearance.
    """
    # Duplicates get a common number: hashes of 32 bytes take memory and are slow to compare.
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

        # A graph of duplicate sets and groups; each image in a group links its set to its group.
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
