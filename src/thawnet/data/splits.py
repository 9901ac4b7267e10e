"""Which images train, validate and test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..files import fingerprint
from .items import Items, Source


def split_off(
    labels: NDArray[np.int64], groups: Sequence[bytes], seed: int, limit: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into (rest, part): 10 %, stratified, at most `limit` rows, at least 5 a class.

    A class of fewer than 20 rows gives a quarter of them, one of fewer than 4 gives none.
    Rows of one group (exact duplicates) stay together. Both results are sorted; the same inputs
    give the same split on every machine.
    """
    share = 0.1 if limit is None else min(0.1, limit / max(1, len(labels)))
    members: dict[bytes, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    # A group is counted under the class of its first row; its other rows follow it.
    leaders: dict[int, list[bytes]] = {}
    for group, rows in members.items():
        leaders.setdefault(int(labels[rows[0]]), []).append(group)
    part: list[int] = []
    for label in sorted(leaders):
        names = leaders[label]
        total = sum(len(members[name]) for name in names)
        wanted = min(max(round(total * share), 5), total // 4)
        taken = 0
        for position in np.random.default_rng([seed, label]).permutation(len(names)):
            rows = members[names[position]]
            if taken + len(rows) <= wanted:
                part += rows
                taken += len(rows)
    mask = np.zeros(len(labels), dtype=bool)
    mask[part] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


@dataclass(frozen=True)
class TrainTest:
    """The lists a run works on; `test` opens the test part when called, not before."""

    train: Items
    val: Items | None
    test: Callable[[], Items]
    fingerprint: str


def arrange(source: Source, split_seed: int) -> TrainTest:
    """Give a source without a test part one (10 %), and open what training needs."""
    everything = source.open_part("train")
    val = source.open_part("val") if "val" in source.parts else None
    if "test" in source.parts:
        train, test = everything, lambda: source.open_part("test")
    else:
        # Another stream than the validation split's, so that the two do not mirror each other.
        rest, part = split_off(everything.labels, everything.hashes, seed=split_seed + 1_000_003)
        train, test = everything.subset(rest), lambda: everything.subset(part)
    name = fingerprint([train.fingerprint, val.fingerprint if val else None, source.classes])
    return TrainTest(train, val, test, name)
