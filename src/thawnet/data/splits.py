"""Splits of images into parts that train, validate and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.files import fingerprint
from .items import Items, Source
from .store import ImageStore

VALIDATION_LIMIT = 2500  # images

Part = TypeVar("Part", Items, ImageStore)


def split_off(
    labels: NDArray[np.int64], ties: NDArray[np.int64], seed: int, limit: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into (rest, part), both sorted; the same inputs give the same on every machine.

    - The part has 10 % of each class, or a smaller share if that is more than `limit` rows in all.
    - It has at least 5 rows of a class, but no more than a quarter: 100 rows give 10, 30 give 5, 12
      give 3, 2 give 1. The rest keeps at least one row of every class, so a single row stays.
    - Rows with the same number in `ties` (duplicates, groups: items.tied) stay together. A class
      whose groups are all larger than its share gives the smallest, if that is at most half of it.
    """
    share = 0.1 if limit is None else min(0.1, limit / max(1, len(labels)))
    rows = np.argsort(ties, kind="stable")
    sizes = np.bincount(ties)
    ends = np.cumsum(sizes)
    left = np.bincount(labels)
    taken = np.zeros(len(sizes), dtype=bool)

    def take(tie: int) -> int:
        """Take a set of rows, unless a class would have none left; return how many it has."""
        lost = np.bincount(labels[rows[ends[tie] - sizes[tie] : ends[tie]]], minlength=len(left))
        if ((left > 0) & (left <= lost)).any():
            return 0
        left[:] -= lost
        taken[tie] = True
        return int(sizes[tie])

    # A set is counted under the class of its first row; its other rows follow it.
    leaders = labels[rows[ends - sizes]]
    for label in np.unique(leaders).tolist():
        members = np.flatnonzero(leaders == label)
        total = int(sizes[members].sum())
        target = min(max(round(total * share), 5), max(1, total // 4) if total > 1 else 0)
        count = 0
        for position in np.random.default_rng([seed, label]).permutation(len(members)):
            tie = int(members[position])
            if count + sizes[tie] <= target:
                count += take(tie)
        smallest = int(members[np.argmin(sizes[members])])
        if target and not count and sizes[smallest] <= total // 2:
            take(smallest)
    mask = taken[ties]
    return np.flatnonzero(~mask), np.flatnonzero(mask)


@dataclass(frozen=True)
class TrainTest:
    """The images of a run by part; the test part is opened when it is read."""

    train: Items
    val: Items | None
    test: Callable[[], Items] | None
    """Opens the test part; None where a run began with one that has been taken away since."""
    fingerprint: str
    """Of all but the test part."""


def check_parts(source: Source, tested: bool) -> None:
    """Raise DataError where names and labels alone show that a part cannot be used.

    tested: whether the test part will be read.
    """
    if "val" in source.parts:
        source.check_part("val")
    if tested and "test" in source.parts:
        try:
            source.check_part("test")
        except DataError as error:
            raise DataError(f"{error}; --no-test trains without a test part") from error


def arrange(source: Source, split_seed: int, own_test: bool | None = None) -> TrainTest:
    """Give a source without a test part one (10 %), and open what training needs.

    own_test: whether the source had a test part when its run began; it may be gone since.
    """
    test: Callable[[], Items] | None
    everything = source.open_part("train")
    val = source.open_part("val") if "val" in source.parts else None
    if "test" in source.parts:
        train, test = everything, lambda: source.open_part("test")
    elif own_test:
        train, test = everything, None
    else:
        # Another stream than the validation split's, so that the two do not mirror each other.
        rest, part = split_off(everything.labels, everything.ties, seed=split_seed + 1_000_003)
        train, test = everything.subset(rest), lambda: everything.subset(part)
    name = fingerprint([train.fingerprint, val.fingerprint if val else None, source.classes])
    return TrainTest(train, val, test, name)


def divide(images: Part, other: Part | None, split_seed: int) -> tuple[Part, Part]:
    """Return what trains and what validates: `other`, or a share of the training images."""
    if other is not None:
        return images, other
    rest, part = split_off(images.labels, images.ties, split_seed, VALIDATION_LIMIT)
    return images.subset(rest), images.subset(part)
