"""Sources that DATA names, and the message for each kind of wrong input."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.photos import draw
from support.shared import CIFAR
from support.shares import HELD_BACK
from support.systems import POSIX
from thawnet.core.errors import DataError, ImageError
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange
from thawnet.image.decode import decode

Photos = Callable[..., Path]
PAIR = {"a": 2, "b": 2}
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


def test_published_test_and_validation_parts_are_honoured(photos: Photos, tmp_path: Path) -> None:
    photos({"a": 3, "b": 3}, "d/train")
    photos({"a": 1, "b": 1}, "d/valid", start=50)
    photos({"a": 2, "b": 2}, "d/test", start=70)
    source = open_source(str(tmp_path / "d"))
    assert source.parts == {"train", "val", "test"}
    lists = arrange(source, HELD_BACK)
    assert lists.val is not None
    assert (len(lists.train), len(lists.val), len(lists.test())) == (6, 2, 4)


def test_no_data_at_the_path_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data at 'cifar10O': no such file or folder.*cifar100"):
        open_source("cifar10O")
    with pytest.raises(DataError, match="no such file or folder"):
        open_source("long" * 99)
    sheet = tmp_path / "labels.xlsx"
    sheet.write_bytes(b"x")
    with pytest.raises(DataError, match="is a spreadsheet; save it as 'CSV UTF-8' and give that"):
        open_source(str(sheet))
    path = tmp_path / "labels.docx"
    path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"expected a folder .* tar of one, a .csv or a .parq"):
        open_source(str(path))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"": {}}, "expected a folder per class"),
        ({"": {"a": 3}}, r"holds one class only \('a'\)"),
        ({"": {"a": 3, "b": 0}}, r"d/b' holds no image; add images or remove it"),
        ({"": {"Cat": 2, "cat": 2}}, "'Cat' and 'cat' differ only by upper and lower case; merge"),
        ({"": {"caf\u00e9": 2, "cafe\u0301": 2}}, "differ only in how its accents are encoded"),
        ({"test": PAIR, "val": PAIR}, "holds test/ and val/ but no train/"),
        ({"Train": PAIR, "Test": PAIR}, "holds Test/ and Train/ but no train/; name the parts tra"),
        ({"train": PAIR, "val": PAIR, "valid": PAIR}, "has val/ and also valid/; keep one"),
        ({"train": PAIR, "extra": PAIR}, "has train/ and also extra/"),
    ],
)
def test_folders_that_are_no_classes_or_parts_are_told(
    photos: Photos, tmp_path: Path, folders: dict[str, dict[str, int]], message: str
) -> None:
    (tmp_path / "d").mkdir()
    try:
        for part, counts in folders.items():
            photos(counts, f"d/{part}")
    except FileExistsError:
        pytest.skip("this file system takes two of the names for one")
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / "d"))


def test_test_class_that_train_lacks_is_refused_by_name(photos: Photos, tmp_path: Path) -> None:
    photos({"cat": 3, "dog": 3}, "d/train")
    photos({"cat": 1, "dogs": 1}, "d/test")
    source = open_source(str(tmp_path / "d"))
    assert len(source.open_part("train")) == 6  # which --no-test trains on
    for look in (source.check_part, source.open_part):
        with pytest.raises(DataError, match="a class that train lacks: 'dogs'; did you mean 'dog'"):
            look("test")


def test_what_is_passed_over_in_a_folder_is_counted(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    (folder / "a" / ".DS_Store").write_text("x")
    (folder / "a" / "notes.txt").write_text("x")
    (folder / ".git").mkdir()
    draw(0, 0).save(folder / "stray.png")
    source = open_source(str(folder))
    assert len(source.open_part("train")) == 4
    assert source.notes == (
        "1 file is left out: not named like images (.txt)",
        "left out: 1 image lies beside the class folders, not in one",
    )


def test_images_without_class_folders_are_told_the_layout(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    draw(0, 0).save(tmp_path / "flat" / "1.png")
    with pytest.raises(
        DataError, match=r"holds 1 image directly and no class folders; .*flat/cat/1.jpg.*CSV"
    ):
        open_source(str(tmp_path / "flat"))


def test_folder_classes_are_its_folders_in_order(photos: Photos) -> None:
    source = open_source(str(photos({"köttur": 2, "black cat": 2, "猫": 2, "..b": 0})))
    assert source.classes == ("black cat", "köttur", "猫")  # what starts with a dot is hidden
    items = source.open_part("train")
    assert items.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert items.names[2] == "köttur/000.png"


def test_accent_written_the_other_way_in_test_is_the_same_class(
    photos: Photos, tmp_path: Path
) -> None:
    photos({"caf\u00e9": 3, "b": 3}, "d/train")
    photos({"cafe\u0301": 1, "b": 1}, "d/test", start=9)
    assert open_source(str(tmp_path / "d")).open_part("test").labels.tolist() == [0, 1]


def test_links_that_loop_are_not_followed(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    (folder / "a" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "a" / "self.png").symlink_to(folder / "a" / "self.png")
    source = open_source(str(folder))
    items = source.open_part("train")
    assert len(items) == 5  # the link to itself is a file, and broken
    assert source.notes == ("not followed: 1 link to folders; copy the images in their place",)
    (folder / "c").symlink_to(folder, target_is_directory=True)
    with pytest.raises(DataError, match=r"c' is a link to a folder that holds it; remove the link"):
        open_source(str(folder))


def test_part_is_not_read_before_it_is_asked_for(photos: Photos, tmp_path: Path) -> None:
    photos({"a": 2, "b": 2}, "d/train")
    folder = photos({"a": 2, "b": 2}, "d/test")
    source = open_source(str(tmp_path / "d"))
    source.open_part("train")
    later = draw(3, 3)
    later.save(folder / "a" / "000.png")
    assert np.asarray(decode(source.open_part("test").read(0))).tolist() == (
        np.asarray(later).tolist()
    )


@POSIX
def test_pipe_and_huge_file_are_broken_images_not_a_wait(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos({"a": 2, "b": 2})
    os.mkfifo(folder / "a" / "pipe.png")
    items = open_source(str(folder)).open_part("train")
    with pytest.raises(ImageError, match="not a file"):
        items.read(2)
    monkeypatch.setattr("thawnet.image.files.MAX_FILE_BYTES", 10)
    with pytest.raises(ImageError, match="at most 0 MB are read"):
        items.read(0)


def test_a_class_may_be_called_train(photos: Callable[..., Path]) -> None:
    """CIFAR-100 has one; a folder of images beside other classes is no training part."""
    source = open_source(str(photos({"bus": 3, "test": 2, "train": 4})))
    assert source.classes == ("bus", "test", "train")
    assert source.parts == {"train"}
    assert np.bincount(source.open_part("train").labels).tolist() == [3, 2, 4]
