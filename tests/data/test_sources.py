"""DATA: what is found, and what each kind of wrong input is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import CIFAR, draw
from thawnet.data.sources import open_source
from thawnet.data.splits import arrange, split_off
from thawnet.errors import DataError

Photos = Callable[..., Path]
needs_cifar = pytest.mark.skipif(not CIFAR.is_dir(), reason=f"needs {CIFAR}")


@needs_cifar
def test_shards_give_the_names_and_counts_of_cifar100() -> None:
    source = open_source("cifar100", CIFAR)
    assert len(source.classes) == 100
    assert source.classes[:2] == ("apple", "aquarium_fish")
    items = source.open_part("test")
    assert len(items) == 10_000
    assert np.bincount(items.labels).tolist() == [100] * 100


@needs_cifar
def test_truncated_shard_is_named_and_what_to_do(tmp_path: Path) -> None:
    for shard in CIFAR.glob("*.parquet"):
        shutil.copyfile(shard, tmp_path / shard.name)
    last = tmp_path / "train-00000-of-00003.parquet"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train-00000-of-00003.parquet' is not a whole parquet"):
        open_source("cifar100", tmp_path)
    last.unlink()
    with pytest.raises(DataError, match="holds 2 of 3 shards"):
        open_source("cifar100", tmp_path)


def test_digits_are_real_and_never_mirrored() -> None:
    source = open_source("digits")
    assert len(source.open_part("train")) == 1797
    assert source.classes == tuple("0123456789")
    assert not source.mirror_safe


def test_folder_classes_are_its_folders_in_order(photos: Photos) -> None:
    source = open_source(str(photos({"zebra": 3, "ant": 2})))
    assert source.classes == ("ant", "zebra")
    items = source.open_part("train")
    assert items.labels.tolist() == [0, 0, 1, 1, 1]
    assert items.names[0] == "ant/000.png"


def test_published_test_and_validation_parts_are_honoured(photos: Photos, tmp_path: Path) -> None:
    photos({"a": 3, "b": 3}, "d/train")
    photos({"a": 1, "b": 1}, "d/valid", start=50)
    photos({"a": 2, "b": 2}, "d/test", start=70)
    source = open_source(str(tmp_path / "d"))
    assert source.parts == {"train", "val", "test"}
    lists = arrange(source, 0)
    assert lists.val is not None
    assert (len(lists.train), len(lists.val), len(lists.test())) == (6, 2, 4)


def test_no_data_at_the_path_is_one_line() -> None:
    with pytest.raises(DataError, match=r"no data at 'cifar10O': no such file or folder.*cifar100"):
        open_source("cifar10O")


def test_folder_without_classes_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder per class"):
        open_source(str(tmp_path / "work"))


def test_folder_with_one_class_is_refused(photos: Photos) -> None:
    with pytest.raises(DataError, match=r"holds one class only \('a'\)"):
        open_source(str(photos({"a": 3})))


def test_empty_class_is_refused_by_name(photos: Photos) -> None:
    with pytest.raises(DataError, match=r"photos/b' holds no image; add images or remove it"):
        open_source(str(photos({"a": 3, "b": 0})))


def test_test_class_that_train_lacks_is_refused_by_name(photos: Photos, tmp_path: Path) -> None:
    photos({"cat": 3, "dog": 3}, "d/train")
    photos({"cat": 1, "dogs": 1}, "d/test")
    with pytest.raises(DataError, match="a class that train lacks: 'dogs'; did you mean 'dog'"):
        open_source(str(tmp_path / "d"))


def test_hidden_and_other_files_are_passed_over_and_counted(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    (folder / "a" / ".DS_Store").write_text("x")
    (folder / "a" / "notes.txt").write_text("x")
    (folder / ".git").mkdir()
    source = open_source(str(folder))
    assert len(source.open_part("train")) == 4
    assert source.notes == ("1 files are left out: not named like images",)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=300),
    st.integers(0, 5),
    st.integers(1, 50),
)
def test_split_is_a_partition_that_keeps_duplicates_together(
    labels: list[int], seed: int, kinds: int
) -> None:
    groups = [bytes([position % kinds]) for position in range(len(labels))]
    rest, part = split_off(np.array(labels), groups, seed)
    assert sorted([*rest, *part]) == list(range(len(labels)))
    assert not {groups[row] for row in rest} & {groups[row] for row in part}


def test_validation_is_a_tenth_stratified_limited_and_at_least_five_a_class() -> None:
    labels = np.repeat(np.arange(100), 500)
    groups = [str(row).encode() for row in range(50_000)]
    _, part = split_off(labels, groups, 0, limit=2500)
    assert np.bincount(labels[part]).tolist() == [25] * 100
    small = np.repeat([0, 1], [1000, 30])
    _, part = split_off(small, groups[:1030], 0)
    assert np.bincount(small[part]).tolist() == [100, 5]
    _, again = split_off(small, groups[:1030], 0)
    assert (part == again).all()


def test_duplicates_across_classes_stay_on_one_side(photos: Photos) -> None:
    folder = photos({"a": 40, "b": 40})
    for number in range(10):
        draw(0, number).save(folder / "b" / f"copy{number}.png")
    lists = arrange(open_source(str(folder)), 0)
    test = lists.test()
    assert len(test) > 0
    assert not set(lists.train.hashes) & set(test.hashes)
