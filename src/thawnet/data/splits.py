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
from .shares import Shares
from .store import ImageStore

TENTH = 0.1  # of the images, that test, and of the others, that validate
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
    """Split rows into (rest, part), both sorted; the same inputs give the same on every machine.

    - A row's lot is drawn from its content, `hashes`, and the seed: it goes to the part if its lot
      is below the share. So it stays where it is when other rows come or go.
    - share: 0 for TENTH, or as much of it as gives `limit` rows in the mean; of classes of which
      that is fewer than 5, as many as 5 in the mean, at most a quarter. As a class grows its share
      falls, so that a row may leave the part, but none comes into it.
    - A class of two rows or more has one in the part, and at most half of them; the rest keeps at
      least one row of every class. Where lots give a class none, its lowest goes.
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
        """Take a set of rows, unless a class would have none left; return how many it has."""
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
    """Return the first row of each set; ties: numbers of sets from 0, (n,), see items.tied."""
    return np.unique(ties, return_index=True)[1]


def lots(hashes: NDArray[np.uint8], ties: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each set of rows, as if drawn: by content and seed alone.

    hashes: (n, 32). ties: numbers of sets from 0, (n,); the smallest hash speaks for its set. The
    bits of a hash are random already; the finaliser of SplitMix64 (Steele et al. 2014, "Fast
    splittable pseudorandom number generators") brings the seed in.
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
    """Return the fold of each row, 0 to shares.folds - 1, (n,): each has its share of every class.

    A set of rows with the same number in `ties` stays in one fold. Sets are dealt out in the order
    of their lots, each class going on where the one before ended, to the fold with fewest of it.
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
            # The emptiest of this class, and of those the emptiest of all.
            fold[tie] = np.lexsort((whole, own))[0]
            own[fold[tie]] += sizes[tie]
            whole[fold[tie]] += sizes[tie]
    return fold[ties]


@dataclass(frozen=True)
class TrainTest:
    """The images of a run by part; the test part is opened when it is read."""

    train: Items
    val: Items | None
    test: Callable[[], Items] | None
    """Opens the test part; None where a run began with one that has been taken away since."""
    fingerprint: str
    """Of all but the test part."""
    folded: bool
    """Whether the training images validate each other, see `folded`."""


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


def arrange(source: Source, shares: Shares, own_test: bool | None = None) -> TrainTest:
    """Give a source without a test part one, and open what training needs.

    Few images (`Shares.few`) are folded, and all train, unless a share of them is to test. A
    validation part beside few tests them.
    own_test: whether the source had a test part when its run began; it may be gone since.
    """
    test: Callable[[], Items] | None
    source.require_train()
    everything = source.open_part("train")
    val = source.open_part("val") if "val" in source.parts else None
    train, few = everything, len(everything) <= shares.few
    if "test" in source.parts:
        test = lambda: source.open_part("test")  # noqa: E731 - beside its like
    elif own_test or (few and val is None and not shares.test):
        test = None
    elif few and val is not None:
        test, val = (lambda items=val: items), None
    else:
        # Another stream than the validation split's, so that the two do not mirror each other.
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
    """Return what trains and what validates: `other`, or a share of the training images."""
    if other is not None:
        return images, other
    rest, part = split_off(
        images.labels, images.ties, images.hashes, shares.seed, shares.val, VALIDATION_LIMIT
    )
    return images.subset(rest), images.subset(part)
