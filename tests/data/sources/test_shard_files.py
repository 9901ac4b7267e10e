"""Which parquet files are read as which part, by the names that people and programs give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.photos import draw, encoded
from support.shards import table
from thawnet.core.errors import DataError
from thawnet.data.sources.open import open_source

Photos = Callable[..., Path]
CONTENT = table({"image": [b"1", b"2", b"3", b"4"], "label": ["a", "b", "a", "b"]})


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    return folder


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], {"train": 8}),
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"],
         {"train": 4, "test": 4}),
        (["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"],
         {"train": 8, "test": 4}),
        (["train/0000.parquet", "validation/0000.parquet"], {"train": 4, "val": 4}),
        (["plain/partial-train/0000.parquet", "plain/partial-test/0000.parquet"],
         {"train": 4, "test": 4}),
        (["cifar100/train-00000-of-00001.parquet"], {"train": 4}),
        (["photos.parquet"], {"train": 4}),
        (["part-00000-c000.snappy.parquet", "part-00001-c000.snappy.parquet"], {"train": 8}),
        (["my_train.parquet", "my_dev.parquet", "my_test2.PARQUET"],
         {"train": 4, "val": 4, "test": 4}),
        (["photos.parquet/part-0.parquet"], {"train": 4}),
        (["train.parquet/part-0.parquet", "test.parquet/part-0.parquet"], {"train": 4, "test": 4}),
    ],
)  # fmt: skip
def test_names_of_files_and_folders_say_the_part(
    tmp_path: Path, names: list[str], counts: dict[str, int]
) -> None:
    source = open_source(str(write(tmp_path / "d", *names)))
    assert {part: len(source.open_part(part)) for part in source.parts} == counts
    assert source.name == "d"
    partial = "partial-" in names[0]
    assert [note[:26] for note in source.notes] == ["this is only the beginning"] * partial


def test_a_file_that_is_named_itself_trains_whatever_it_is_called(tmp_path: Path) -> None:
    write(tmp_path, "photos.parquet", "test.parquet", "train-00000-of-00003.parquet")
    for name in ("photos", "test"):
        source = open_source(str(tmp_path / f"{name}.parquet"))
        assert (source.name, source.parts, source.notes) == (name, {"train"}, ())
    assert open_source(str(tmp_path / "train-00000-of-00003.parquet")).notes == (
        "'train-00000-of-00003.parquet' alone is read, one of 3 shards; give its folder for all",
    )


def test_a_file_named_for_no_part_beside_others_is_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path, "train.parquet", "extra-00000-of-00001.parquet")
    source = open_source(str(tmp_path))
    assert len(source.open_part("train")) == 4
    assert source.notes == (
        "left out: 1 parquet file named for no part, such as 'extra-00000-of-00001.parquet'",
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cropped/train/0.parquet", "full/train/0.parquet"],
         r"d' holds 2 data sets: 'cropped', 'full'; give the folder of one, such as '.*d/full'$"),
        (["test.parquet"], "holds parquet shards but none named train-.*; found test.parquet"),
        (["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"],
         "holds 2 of 3 shards like 'train-00000-of-00003.parquet'; download the missing ones"),
        (["train-00000-of-00001.parquet", "train-00000-of-00001 (1).parquet"],
         r"holds shard 00000 twice, as '.*' and 'train-00000-of-00001.*'; remove one"),
    ],
)  # fmt: skip
def test_files_that_are_no_one_data_set_are_told(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(str(write(tmp_path / "d", *names)))


def test_the_configuration_that_is_named_opens(tmp_path: Path) -> None:
    write(tmp_path, "cropped/train/0.parquet", "full/train/0.parquet")
    assert open_source(str(tmp_path / "cropped")).parts == {"train"}


def test_a_stray_parquet_file_among_class_folders_is_left_out(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    write(folder, "a/0.parquet")
    source = open_source(str(folder))
    assert source.classes == ("a", "b")
    assert source.notes == ("1 file is left out: not named like images (.parquet)",)


def test_a_file_that_was_never_fetched_or_may_not_be_read_is_told_what_to_do(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 7\n")
    with pytest.raises(DataError, match=r"only a pointer to a file in Git LFS; .* git lfs pull"):
        open_source(str(path))
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(DataError, match=r"a.parquet' cannot be read: Too many levels"):
        open_source(str(tmp_path))


def test_images_that_lie_beside_their_shard_are_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    photos = [encoded(draw(0, number)) for number in range(3)]
    for number, photo in enumerate(photos):
        (tmp_path / "images" / f"{number}.png").write_bytes(photo)
    cells = [{"bytes": None, "path": f"images/{number}.png"} for number in range(4)]
    (tmp_path / "train.parquet").write_bytes(table({"image": cells, "label": ["a", "b", "a", "b"]}))
    items = open_source(str(tmp_path)).open_part("train")
    assert [items.read(row) for row in range(3)] == photos
    with pytest.raises(FileNotFoundError):
        items.read(3)
    for number in range(1, 3):
        (tmp_path / "images" / f"{number}.png").unlink()
    message = (
        "3 of 4 train images are not in the shards but in files beside them, such as "
        "'images/1.png', that cannot be read there; put them into that folder"
    )
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path)).open_part("train")
