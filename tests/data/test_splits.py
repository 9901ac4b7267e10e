"""Splits: stratified, repeatable, and nothing that belongs together on two sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.photos import draw
from support.shares import HELD_BACK
from thawnet.data.items import sha256_rows, tied
from thawnet.data.shares import Shares
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange, folded, lots, split_off
from thawnet.data.store import open_store
from thawnet.image.preprocess import Reduction

Photos = Callable[..., Path]


def distinct(count: int) -> np.ndarray:
    return sha256_rows(str(row).encode() for row in range(count))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(-1, 40)), min_size=1),
    st.integers(0, 5),
)
def test_split_is_a_partition_that_divides_no_group_and_no_duplicates(
    rows: list[tuple[int, int, int]], seed: int
) -> None:
    labels, kinds, groups = np.array(rows, dtype=np.int64).T
    hashes = sha256_rows(bytes([kind]) for kind in kinds)
    rest, part = split_off(labels, tied(hashes, groups), hashes, seed, 0.1)
    assert sorted([*rest, *part]) == list(range(len(labels)))
    assert not set(kinds[rest]) & set(kinds[part])
    assert not set(groups[rest]) & set(groups[part]) - {-1}
    assert set(labels[rest]) == set(labels)


def test_duplicate_ties_the_groups_that_share_it() -> None:
    hashes = sha256_rows([b"a", b"b", b"b", b"c", b"d", b"e"])
    groups = np.array([7, 7, 2, 2, -1, -1])
    assert tied(hashes, groups).tolist() == [0, 0, 0, 0, 1, 2]
    assert tied(hashes, None).tolist() == [0, 1, 1, 2, 3, 4]


def test_share_of_each_class_is_about_the_one_asked_for_and_never_nothing() -> None:
    labels = np.repeat(np.arange(100), 500)
    _, part = split_off(labels, np.arange(50_000), distinct(50_000), 0, limit=2500)
    counts = np.bincount(labels[part])
    assert 2300 < len(part) < 2700
    assert 10 <= counts.min() <= counts.max() <= 45  # binomial: 25, standard deviation 4.9
    few = np.repeat(np.arange(30), 2)
    _, part = split_off(few, np.arange(60), distinct(60), 0)
    assert np.bincount(few[part]).tolist() == [1] * 30
    small = np.repeat(np.arange(50), 25)
    for share, least, most in ((0.0, 230, 270), (0.1, 90, 150)):  # 5 of 25, or what is asked for
        _, part = split_off(small, np.arange(1250), distinct(1250), 0, share)
        assert least < len(part) < most
    _, part = split_off(np.zeros(1, np.int64), np.arange(1), distinct(1), 0, 0.5)
    assert len(part) == 0


@given(st.sets(st.integers(0, 1000), min_size=20, max_size=60), st.integers(0, 3))
def test_image_stays_in_its_part_when_others_are_added_or_reordered(
    numbers: set[int], seed: int
) -> None:
    every = sorted(numbers)
    fewer = every[::2][::-1]
    sides = []
    for some in (every, fewer):
        hashes = sha256_rows(str(number).encode() for number in some)
        labels = np.zeros(len(some), np.int64)
        _, part = split_off(labels, np.arange(len(some)), hashes, seed, 0.1)
        # Where lots give a class none, the lowest is taken until another is lower.
        drawn = lots(hashes, np.arange(len(some)), seed)
        sides.append({some[row] for row in part if drawn[row] < 0.1})
    assert sides[0] & set(fewer) == sides[1]


def test_lots_are_spread_evenly_and_each_seed_draws_anew() -> None:
    hashes = distinct(20_000)
    one, other = lots(hashes, np.arange(20_000), 0), lots(hashes, np.arange(20_000), 1)
    assert np.histogram(one, 10, (0, 1))[0].min() > 1800
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    # The same on every machine, and no likelier to be low for a set of many.
    assert one[0] == pytest.approx(0.7539, abs=1e-4)
    assert 0.45 < lots(hashes, np.arange(20_000) // 20, 0).mean() < 0.55


def test_few_large_groups_still_give_one_to_validate_on() -> None:
    labels = np.zeros(100, np.int64)
    groups = np.repeat([0, 1, 2], [40, 35, 25])
    hashes = distinct(100)
    _, part = split_off(labels, tied(hashes, groups), hashes, 0, 0.1)
    assert len(set(groups[part])) == 1


def test_group_that_holds_all_of_a_class_stays_in_training() -> None:
    labels = np.array([0] * 38 + [1, 1])
    groups = np.array([-1] * 37 + [5, 5, 5])
    hashes = distinct(40)
    for seed in range(20):
        _, part = split_off(labels, tied(hashes, groups), hashes, seed, 0.1)
        assert 1 not in labels[part]


def test_folds_share_out_every_class_and_keep_together_what_belongs_together() -> None:
    labels = np.repeat([0, 1, 2], [23, 11, 5])
    groups = np.full(39, -1)
    groups[:6] = [0, 0, 0, 1, 1, 1]
    hashes = distinct(39)
    hashes[30] = hashes[29]
    fold = folded(labels, tied(hashes, groups), hashes, Shares(folds=5))
    assert set(fold) == set(range(5))
    assert len(set(fold[:3])) == len(set(fold[3:6])) == 1
    assert fold[29] == fold[30]
    for label, most in ((0, 6), (1, 3), (2, 1)):
        assert np.bincount(fold[labels == label], minlength=5).max() <= most
    assert (fold == folded(labels, tied(hashes, groups), hashes, Shares(folds=5))).all()


def test_duplicates_across_classes_stay_on_one_side(photos: Photos) -> None:
    folder = photos({"a": 40, "b": 40})
    for number in range(10):
        draw(0, number).save(folder / "b" / f"copy{number}.png")
    lists = arrange(open_source(str(folder)), HELD_BACK)
    test = lists.test()
    assert len(test) > 0
    assert not set(map(bytes, lists.train.hashes)) & set(map(bytes, test.hashes))


def test_groups_of_a_table_hold_through_test_and_validation(photos: Photos) -> None:
    folder = photos({"a": 60, "b": 60})
    lines = ["path,label,group"]
    for name in "ab":
        lines += [f"{name}/{row:03d}.png,{name},{name}{row // 4}" for row in range(60)]
    (folder / "table.csv").write_text("\n".join(lines))
    source = open_source(str(folder / "table.csv"))
    lists = arrange(source, HELD_BACK)
    store = open_store(lists.train, Reduction(40), lambda done: None, 2)
    rest, part = split_off(store.labels, store.ties, store.hashes, 0, 0.1)
    assert store.all_groups is not None
    sides = [store.all_groups[rest], store.all_groups[part], lists.test().groups]
    members = [set(np.asarray(side).tolist()) for side in sides]
    assert all(members)
    assert len(members[0] | members[1] | members[2]) == sum(map(len, members)) == 30


def test_class_that_lots_give_none_has_its_lowest_set() -> None:
    labels = np.zeros(60, np.int64)  # a share of six
    for seed in range(20):
        _, part = split_off(labels, np.arange(60) // 4, distinct(60), seed, 1e-9)
        assert len(part) == 4


def test_test_part_is_drawn_by_itself(photos: Photos) -> None:
    source = open_source(str(photos({"a": 60, "b": 60})))
    everything, lists = source.open_part("train"), arrange(source, HELD_BACK)
    assert lists.test is not None
    _, part = split_off(everything.labels, everything.ties, everything.hashes, 0, 0.1)
    assert set(lists.test().names) != {everything.names[row] for row in part}
