"""Splits of images into training, validation and test parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.files import fingerprint
from .items import Items, Source
from .shares import Shares
from .store import ImageStore

TENTH = 0.1  # of the images for test, and of the others for validation
VALIDATION_LIMIT = 2500  # images

Part = TypeVar("Part", Items, ImageStore)


def split_off(
    labels: NDArray[np.int64],
    ties: NDArray[np.int64],
    hashes: NDArray[np.uint8],
    seed: int,
    share: float = 0.0,
    limit: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into (rest, part), both sorted; equal inputs give equal splits on every machine.

    - A row's lot in [0, 1) depends on its content, `hashes`, and the seed. The row goes to the part
      if its lot is below the share, so it stays where it is when other rows come or go.
    - share: 0 for TENTH, reduced if need be to give `limit` rows on average. A class that would
      average fewer than 5 rows has a larger share: 5 rows on average, at most a quarter. As a class
      grows its share falls, so rows may leave the part, but none enters it.
    - A class of two rows or more has at least one in the part, and at most half of them. The rest
      keeps at least one row of every class. If no lot is low enough, the lowest goes.
    - Rows with the same number in `ties` (duplicates, groups: items.tied) stay together.
    """
    whole = TENTH if limit is None else min(TENTH, limit / max(1, len(labels)))
    rows = np.argsort(ties, kind="stable")
    sizes = np.bincount(ties)
    ends = np.cumsum(sizes)
    left = np.bincount(labels)
    taken = np.zeros(len(sizes), dtype=bool)
    drawn = lots(hashes, ties, seed)

    def take(tie: int) -> int:
        """Move a set to the part unless that empties a class; return how many rows were moved."""
        lost = np.bincount(labels[rows[ends[tie] - sizes[tie] : ends[tie]]], minlength=len(left))
        if ((left > 0) & (left <= lost)).any():
            return 0
        left[:] -= lost
        taken[tie] = True
        return int(sizes[tie])

    # A set is counted under the class of its first row; its other rows follow it.
    leaders = labels[first_of_each(ties)]
    for label in np.unique(leaders).tolist():
        members = np.flatnonzero(leaders == label)
        members = members[np.argsort(drawn[members], kind="stable")]
        total = int(sizes[members].sum())
        own, most = share or min(max(whole, 5 / total), max(whole, 0.25)), total // 2
        count = 0
        for tie in members.tolist():
            if count and drawn[tie] >= own:
                break
            if count + sizes[tie] <= most:
                count += take(tie)
    mask = taken[ties]
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def first_of_each(ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first row of each set; ties: set numbers from 0, (n,), see items.tied."""
    return np.unique(ties, return_index=True)[1]


def lots(hashes: NDArray[np.uint8], ties: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return a pseudorandom number in [0, 1) for each set of rows, from its content and the seed.

    hashes: (n, 32). ties: set numbers from 0, (n,). The smallest hash of a set represents it. The
    bits of a hash are random already; the finaliser of SplitMix64 (Steele et al. 2014, "Fast
    splittable pseudorandom number generators") mixes in the seed.
    """
    beginnings = np.ascontiguousarray(hashes[:, :8]).view("<u8")[:, 0].astype(np.uint64)
    bits = np.full(ties.max(initial=-1) + 1, np.iinfo(np.uint64).max)
    np.minimum.at(bits, ties, beginnings)
    bits ^= np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)) / 2.0**53


def folded(
    labels: NDArray[np.int64], ties: NDArray[np.int64], hashes: NDArray[np.uint8], shares: Shares
) -> NDArray[np.int64]:
    """Return the fold of each row, 0 to shares.folds - 1, (n,), stratified by class.

    Rows with the same number in `ties` stay in one fold. Each class deals out its sets, largest
    first and then by lot, to the fold with the fewest rows of that class.
    """
    sizes = np.bincount(ties)
    drawn = lots(hashes, ties, shares.seed)
    fold = np.zeros(len(sizes), np.int64)
    whole = np.zeros(shares.folds, np.int64)
    leaders = labels[first_of_each(ties)]
    for label in np.unique(leaders).tolist():
        members = np.flatnonzero(leaders == label)
        own = np.zeros(shares.folds, np.int64)
        for tie in members[np.lexsort((drawn[members], -sizes[members]))].tolist():
            # The fold with fewest rows of this class, and among equals the smallest fold.
            fold[tie] = np.lexsort((whole, own))[0]
            own[fold[tie]] += sizes[tie]
            whole[fold[tie]] += sizes[tie]
    return fold[ties]


@dataclass(frozen=True)
class TrainTest:
    """The images of a run by part; the test part is opened only when it is needed."""

    train: Items
    val: Items | None
    test: Callable[[], Items] | None
    """Opens the test part. None if all images are folded, or if the run's test part is gone."""
    fingerprint: str
    """Fingerprint of the training and validation images and the classes."""
    folded: bool
    """Whether the training images are cross-validated, see the function `folded`."""


def check_parts(source: Source, tested: bool) -> None:
    """Raise DataError if names and labels alone show that a part cannot be used.

    tested: whether the test part will be read.
    """
    if "val" in source.parts:
        source.check_part("val")
    if tested and "test" in source.parts:
        try:
            source.check_part("test")
        except DataError as error:
            raise DataError(f"{error}; --no-test trains without a test part") from error


def arrange(source: Source, shares: Shares, own_test: bool | None = None) -> TrainTest:
    """Open the parts that training needs, splitting off a test part if the source has none.

    Up to `Shares.few` images are folded: all train, unless `shares.test` sets some aside. If
    they come with a validation part but no test part, the validation part becomes the test part.
    own_test: whether the source had a test part when its run began. If it is gone, none is made.
    """
    test: Callable[[], Items] | None
    source.require_train()
    everything = source.open_part("train")
    val = source.open_part("val") if "val" in source.parts else None
    train, few = everything, len(everything) <= shares.few
    if "test" in source.parts:
        test = lambda: source.open_part("test")  # noqa: E731 - like the lambdas below
    elif own_test or (few and val is None and not shares.test):
        test = None
    elif few and val is not None:
        test, val = (lambda items=val: items), None
    else:
        # Another seed than the validation split's, so that the two splits are independent.
        rest, part = split_off(
            everything.labels,
            everything.ties,
            everything.hashes,
            shares.seed + 1_000_003,
            shares.test,
        )
        train, test = everything.subset(rest), lambda: everything.subset(part)
    name = fingerprint([train.fingerprint, val.fingerprint if val else None, source.classes])
    return TrainTest(train, val, test, name, folded=few and val is None)


def divide(images: Part, other: Part | None, shares: Shares) -> tuple[Part, Part]:
    """Return the training and validation images; without `other`, a share of `images` validates."""
    if other is not None:
        return images, other
    rest, part = split_off(
        images.labels, images.ties, images.hashes, shares.seed, shares.val, VALIDATION_LIMIT
    )
    return images.subset(rest), images.subset(part)
