"""Labelled images that are read one by one, and the parts of a data set that they form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

VALIDATION_NAMES = ("val", "valid", "validation")

Raw = bytes | NDArray[np.uint8]


@dataclass(frozen=True)
class Items:
    """Labelled images that are read when asked for.

    names: one per image, for messages and lists. labels: class positions, (n,) int64.
    hashes: SHA-256 of each image as stored, so exact duplicates share one.
    read: position -> encoded bytes, or a (height, width, 3) uint8 array.
    """

    names: Sequence[str]
    labels: NDArray[np.int64]
    hashes: Sequence[bytes]
    read: Callable[[int], Raw]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: NDArray[np.int64]) -> Items:
        """Return the images at `rows`, in that order."""
        return Items(
            names=[self.names[row] for row in rows],
            labels=self.labels[rows],
            hashes=[self.hashes[row] for row in rows],
            read=lambda position: self.read(int(rows[position])),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Name the content: every image's hash and label, in order."""
        digest = hashlib.sha256(self.labels.tobytes())
        for value in self.hashes:
            digest.update(value)
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Source:
    """What lies at DATA.

    `open_part` reads the list of one part; nothing of a part is touched before, so a run that
    never asks for 'test' never opens it. `mirror_safe` is False where a mirrored image means
    something else, as for digits.
    """

    name: str
    classes: tuple[str, ...]
    parts: frozenset[str]
    open_part: Callable[[str], Items]
    mirror_safe: bool = True
    notes: tuple[str, ...] = ()
