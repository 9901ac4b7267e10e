"""Splits: stratified, repeatable, and nothing that belongs together on two sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.photos import draw
from thawnet.data.items import sha256_rows, tied
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange, split_off
from thawnet.data.store import open_store

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
    rest, part = split_off(labels, tied(hashes, groups), seed)
    assert sorted([*rest, *part]) == list(range(len(labels)))
    assert not set(kinds[rest]) & set(kinds[part])
    assert not set(groups[rest]) & set(groups[part]) - {-1}
    assert set(labels[rest]) == set(labels)


def test_duplicate_ties_the_groups_that_share_it() -> None:
    hashes = sha256_rows([b"a", b"b", b"b", b"c", b"d", b"e"])
    groups = np.array([7, 7, 2, 2, -1, -1])
    assert tied(hashes, groups).tolist() == [0, 0, 0, 0, 1, 2]
    assert tied(hashes, None).tolist() == [0, 1, 1, 2, 3, 4]


def test_validation_is_a_tenth_stratified_limited_and_at_least_five_a_class() -> None:
    labels = np.repeat(np.arange(100), 500)
    _, part = split_off(labels, np.arange(50_000), 0, limit=2500)
    assert np.bincount(labels[part]).tolist() == [25] * 100
    small = np.repeat([0, 1], [1000, 30])
    _, part = split_off(small, np.arange(1030), 0)
    assert np.bincount(small[part]).tolist() == [100, 5]
    _, again = split_off(small, np.arange(1030), 0)
    assert (part == again).all()


def test_few_large_groups_still_give_one_to_validate_on() -> None:
    labels = np.zeros(100, np.int64)
    groups = np.repeat([0, 1, 2], [40, 35, 25])
    _, part = split_off(labels, tied(distinct(100), groups), 0)
    assert (groups[part] == 2).all()
    assert len(part) == 25


def test_group_that_holds_all_of_a_class_stays_in_training() -> None:
    labels = np.array([0] * 38 + [1, 1])
    groups = np.array([-1] * 37 + [5, 5, 5])
    for seed in range(20):
        _, part = split_off(labels, tied(distinct(40), groups), seed)
        assert 1 not in labels[part]


def test_duplicates_across_classes_stay_on_one_side(photos: Photos) -> None:
    folder = photos({"a": 40, "b": 40})
    for number in range(10):
        draw(0, number).save(folder / "b" / f"copy{number}.png")
    lists = arrange(open_source(str(folder)), 0)
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
    lists = arrange(source, 0)
    store = open_store(lists.train, 40, lambda done: None, 2)
    rest, part = split_off(store.labels, store.ties, 0)
    assert store.all_groups is not None
    sides = [store.all_groups[rest], store.all_groups[part], lists.test().groups]
    members = [set(np.asarray(side).tolist()) for side in sides]
    assert all(members)
    assert len(members[0] | members[1] | members[2]) == sum(map(len, members)) == 30


def test_sets_that_do_not_fit_into_a_class_share_stay_in_training() -> None:
    labels = np.zeros(60, np.int64)  # a share of six
    for seed in range(20):
        _, part = split_off(labels, np.arange(60) // 4, seed)
        assert len(part) == 4


def test_test_part_is_drawn_by_itself(photos: Photos) -> None:
    source = open_source(str(photos({"a": 60, "b": 60})))
    everything, lists = source.open_part("train"), arrange(source, 0)
    assert lists.test is not None
    _, part = split_off(everything.labels, everything.ties, 0)
    assert set(lists.test().names) != {everything.names[row] for row in part}
