"""Columns of parquet files as the hub, pandas and polars write them, and what labels are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from support.shards import table
from thawnet.core.errors import DataError
from thawnet.data.items import Source
from thawnet.data.reading import Reading
from thawnet.data.sources import shard_columns
from thawnet.data.sources.open import open_source

Photos = Callable[..., Path]

BYTES = [b"0", b"1", b"2", b"3"]
CELLS = [{"bytes": content, "path": "x.png"} for content in BYTES]
IMAGE = {"_type": "Image"}


def opened(
    folder: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, **which: str
) -> Source:
    path = folder / "train.parquet"
    path.write_bytes(table(columns, features))
    return open_source(str(path), asked=Reading(**which))


def named(*names: str) -> dict[str, Any]:
    return {"_type": "ClassLabel", "names": names}


@pytest.mark.parametrize(
    ("labels", "classes", "positions"),
    [
        (["cat", "ape", "cat", "ape"], ("ape", "cat"), [1, 0, 1, 0]),
        (pa.array(["cat", "ape", "cat", "ape"], pa.large_string()), ("ape", "cat"), [1, 0, 1, 0]),
        (pa.array(["b", "a", "b", "a"]).dictionary_encode(), ("a", "b"), [1, 0, 1, 0]),
        (
            pa.DictionaryArray.from_arrays([1, 2, 1, 2], ["unused", "b", "a"]),
            ("a", "b"),
            [1, 0, 1, 0],
        ),
        ([10, 9, 10, 9], ("9", "10"), [1, 0, 1, 0]),
        (pa.array([2, 1, 2, 1], pa.uint8()), ("1", "2"), [1, 0, 1, 0]),
        (pa.array([10, 9, 10, 9]).dictionary_encode(), ("9", "10"), [1, 0, 1, 0]),
        ([-1, 1, -1, 1], ("-1", "1"), [0, 1, 0, 1]),
        ([True, False, True, False], ("False", "True"), [1, 0, 1, 0]),
        ([" cafe\u0301", "b", "caf\u00e9", "b"], ("b", "caf\u00e9"), [1, 0, 1, 0]),
    ],
)
def test_classes_are_the_values_that_occur_in_order(
    tmp_path: Path, labels: Any, classes: tuple[str, ...], positions: list[int]
) -> None:
    source = opened(tmp_path, {"image": CELLS, "label": labels})
    assert source.classes == classes
    items = source.open_part("train")
    assert items.labels.tolist() == positions
    assert [items.read(row) for row in range(4)] == BYTES


def test_text_labels_under_hub_metadata_that_says_so_are_read(tmp_path: Path) -> None:
    features = {"image": IMAGE, "label": {"dtype": "string", "_type": "Value"}}
    source = opened(tmp_path, {"image": CELLS, "label": ["x", "y", "x", "y"]}, features)
    assert source.classes == ("x", "y")


def test_names_in_the_metadata_keep_their_order_and_numbers(tmp_path: Path) -> None:
    features = {"img": IMAGE, "kind": named("z", "unseen", "a")}
    source = opened(tmp_path, {"img": CELLS, "kind": [2, 0, 2, 0]}, features)
    assert source.classes == ("z", "unseen", "a")
    assert source.open_part("train").labels.tolist() == [2, 0, 2, 0]


def test_a_test_part_that_names_its_numbers_otherwise_is_matched_by_name(tmp_path: Path) -> None:
    for part, names in (("train", ("ape", "cat")), ("test", ("cat", "ape"))):
        content = table(
            {"image": CELLS, "label": [0, 1, 1, 1]}, {"image": IMAGE, "label": named(*names)}
        )
        (tmp_path / f"{part}.parquet").write_bytes(content)
    source = open_source(str(tmp_path))
    assert source.classes == ("ape", "cat")
    assert source.open_part("train").labels.tolist() == [0, 1, 1, 1]
    assert source.open_part("test").labels.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    "images", [BYTES, pa.array(BYTES, pa.large_binary()), pa.array(BYTES, pa.binary_view()), CELLS]
)
def test_images_are_found_by_their_type(tmp_path: Path, images: Any) -> None:
    source = opened(tmp_path, {"breed": ["a", "b", "a", "b"], "photo": images})
    assert source.open_part("train").read(2) == b"2"
    assert source.notes == ()


def test_an_index_that_pandas_saved_and_fractions_are_no_labels(tmp_path: Path) -> None:
    columns = {
        "image": BYTES,
        "breed": ["a", "b", "a", "b"],
        "weight": [0.5, 1.0, 2.0, 3.0],
        "__index_level_0__": [4, 7, 9, 2],
    }
    source = opened(tmp_path, columns)
    assert (source.classes, source.notes) == (("a", "b"), ())


@pytest.mark.parametrize(
    ("labels", "features", "classes", "kept"),
    [
        (["a", None, "b", " "], None, ("a", "b"), [0, 2]),
        ([1.0, 0.0, float("nan"), None], None, ("0", "1"), [0, 1]),
        ([1, 0, -1, None], None, ("0", "1"), [0, 1]),
        ([1, 0, -1, None], named("x", "y"), ("x", "y"), [0, 1]),
    ],
)
def test_images_without_a_label_are_left_out_and_counted(
    tmp_path: Path, labels: Any, features: Any, classes: tuple[str, ...], kept: list[int]
) -> None:
    cells, some = CELLS * 2, [*labels, *labels]
    source = opened(tmp_path, {"image": cells, "label": some}, features and {"label": features})
    assert source.classes == classes
    assert source.notes == ("left out: 4 of 8 train images without a label",)
    items = source.open_part("train")
    rows = [*kept, *(row + 4 for row in kept)]
    assert list(items.names) == [f"train/{row}" for row in rows]
    assert [items.read(row) for row in range(4)] == [cells[row]["bytes"] for row in rows]


@pytest.mark.parametrize("labels", [None, pa.nulls(4), [-1] * 4, [None, -1, None, None]])
def test_a_test_part_without_any_label_is_no_test_part(tmp_path: Path, labels: Any) -> None:
    columns: dict[str, Any] = {"image": CELLS, "label": [0, 1, 0, 1]}
    (tmp_path / "train.parquet").write_bytes(table(columns))
    columns = {"image": CELLS} if labels is None else {"image": CELLS, "label": labels}
    (tmp_path / "test.parquet").write_bytes(table(columns))
    source = open_source(str(tmp_path))
    assert source.parts == {"train"}
    assert source.notes == ("left out: 4 of 4 test images without a label, so the whole part",)


TWO = {"image": CELLS, "color": [0, 1, 0, 1], "shape": [1, 1, 0, 0], "size": ["s", "m", "s", "m"]}
NAMED = {"image": IMAGE, "color": named("red", "blue"), "shape": named("disc", "box")}


@pytest.mark.parametrize(
    ("more", "which", "classes", "notes"),
    [
        (
            {"label": named("x", "y")},
            {},
            ("x", "y"),
            ("the labels are column 'label'; --label-column takes another: 'color', 'shape'",),
        ),
        (
            {},
            {"label_column": "shape"},
            ("disc", "box"),
            ("the labels are column 'shape'; --label-column takes another: 'color'",),
        ),
        (
            {},
            {"label_column": "size"},
            ("m", "s"),
            ("the labels are column 'size'; --label-column takes another: 'color', 'shape'",),
        ),
    ],
)
def test_of_several_columns_the_one_called_label_or_asked_for_is_taken_and_said(
    tmp_path: Path, more: Any, which: Any, classes: tuple[str, ...], notes: tuple[str, ...]
) -> None:
    columns = {**TWO, **{name: [1, 0, 1, 0] for name in more}}
    source = opened(tmp_path, columns, {**NAMED, **more}, **which)
    assert (source.classes, source.notes) == (classes, notes)


def test_of_two_labels_of_cifar100_the_fine_one_is_taken_and_said(tmp_path: Path) -> None:
    columns = {"img": CELLS, "coarse_label": [0, 0, 1, 1], "fine_label": [0, 1, 0, 1]}
    features = {"img": IMAGE, "coarse_label": named("x", "y"), "fine_label": named("a", "b")}
    source = opened(tmp_path, columns, features)
    assert source.classes == ("a", "b")
    assert source.notes == (
        "the labels are column 'fine_label'; --label-column takes another: 'coarse_label'",
    )
    assert opened(tmp_path, columns, features, label_column="coarse_label").classes == ("x", "y")


def test_of_two_columns_of_images_the_one_asked_for_is_read(tmp_path: Path) -> None:
    columns = {"left": BYTES, "right": BYTES[::-1], "label": ["a", "b", "a", "b"]}
    with pytest.raises(
        DataError,
        match="has 2 columns that may hold the images: 'left', 'right'; choose with --image-column",
    ):
        opened(tmp_path, columns)
    source = opened(tmp_path, columns, image_column="right")
    assert source.open_part("train").read(0) == b"3"
    columns = {"mask": BYTES, "image": BYTES[::-1], "label": ["a", "b", "a", "b"]}
    assert opened(tmp_path, columns).open_part("train").read(0) == b"3"


@pytest.mark.parametrize(
    ("columns", "which", "message"),
    [
        (
            TWO,
            {},
            "has 3 columns that may hold the labels: 'color', 'shape', 'size'; choose with "
            "--label-column NAME",
        ),
        (TWO, {"label_column": "colour"}, "no such column; did you mean 'color'"),
        (TWO, {"label_column": "image"}, r"holds .*, and labels are text, whole numbers, or true"),
        (TWO, {"image_column": "size"}, r"holds .*string.*, and images are bytes, or structs of"),
        ({"image": CELLS}, {}, r"no column of labels \(text, .*\), only 'image'; save the labels"),
        ({"image": CELLS, "label": [[0]] * 4}, {}, r"no column of labels .*, only 'image', 'la"),
        ({"label": ["a"] * 4}, {}, r"no column of images \(bytes, or structs of bytes and path\)"),
        ({"image": CELLS, "label": ["a"] * 4}, {}, r"one class only \('a'\)"),
        ({"image": CELLS, "label": ["Cat", "cat"] * 2}, {}, "differ only by upper and lower case"),
        ({"image": CELLS, "label": ["1.png", "2.png", "3.png", "4.png"]}, {},
         "all 4 images have different values, so these are no classes; --label-column NAME"),
        ({"image": CELLS, "label": [0.5, 1, 1, 0]}, {}, "the label 0.5; expected whole numbers"),
        ({"image": CELLS, "label": pa.nulls(4, pa.string())}, {}, "no image has a label in column"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_told_are_one_sentence(
    tmp_path: Path, columns: dict[str, Any], which: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        opened(tmp_path, columns, **which)


def test_text_in_one_shard_and_numbers_in_another_are_one_sentence(tmp_path: Path) -> None:
    for number, labels in enumerate((["a", "b", "a", "b"], [0, 1, 0, 1])):
        path = tmp_path / f"train-{number}.parquet"
        path.write_bytes(table({"image": CELLS, "label": labels}))
    with pytest.raises(DataError, match=r"text and numbers in one column .* save it as text"):
        open_source(str(tmp_path))


def test_more_values_than_classes_are_told_before_they_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_columns, "MOST_LABELS", 50)
    monkeypatch.setattr(shard_columns, "LABEL_ROWS", 20)
    names = [f"{number}.jpg" for number in np.arange(100).tolist()]
    with pytest.raises(DataError, match="'file' holds over 50 different values, so these are no"):
        opened(tmp_path, {"image": [b"x"] * 100, "file": names})


def test_a_column_asked_for_of_data_without_columns_is_one_sentence(photos: Photos) -> None:
    asked = Reading(label_column="y")
    for data in ("digits", str(photos({"a": 2, "b": 2}))):
        with pytest.raises(DataError, match="'y': it is for a CSV, or parquet files, and"):
            open_source(data, asked=asked)


def test_column_of_parts_is_not_trained_over(tmp_path: Path) -> None:
    columns = {
        "image": CELLS,
        "label": ["a", "b"] * 2,
        "split": ["train", "valid", "test", "train"],
    }
    with pytest.raises(
        DataError, match=r"in column 'split' which rows train and which test \('test'"
    ):
        opened(tmp_path, columns)
    assert opened(tmp_path, {**columns, "split": ["train"] * 4}).classes == ("a", "b")
