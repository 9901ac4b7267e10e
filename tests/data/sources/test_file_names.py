"""Heaps of images: their names give the classes if one asks for it, and else a sentence helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.photos import heap
from thawnet.core.errors import DataError
from thawnet.data.reading import Reading
from thawnet.data.sources.file_names import label_of
from thawnet.data.sources.open import open_source

Photos = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat.0.jpg", "cat"),  # dogs-vs-cats
        ("great_pyrenees_173.jpg", "great_pyrenees"),  # Oxford's pets
        ("Egyptian_Mau_1.jpg", "Egyptian_Mau"),
        ("dog_12.jpg", "dog"),
        ("n0001_rose (3).jpg", "n0001_rose"),
        ("rose (3).jpg", "rose"),
        ("rose(3).jpg", "rose"),
        ("t-shirt-004.png", "t-shirt"),
        ("deep/cat_-_7.png", "cat"),
        ("köttur 12.jpg", "köttur"),
        ("cafe\u0301_1.jpg", "caf\u00e9"),
        ("type_2_17.jpg", "type_2"),
        ("17.jpg", None),
        ("_17.jpg", None),
        ("cat.jpg", None),
        ("cat12.jpg", None),
        ("cat_12b.jpg", None),
    ],
)
def test_label_is_what_stands_before_a_separator_and_a_number(name: str, label: str | None) -> None:
    assert label_of(name) == label


def test_names_give_labels_below_train_and_test(tmp_path: Path) -> None:
    folder = heap(
        tmp_path / "d",
        *("train/cat.0.png", "train/dog.0.png", "train/cat.1.png", "train/deep/dog.1.png"),
        *("test/dog.7.png", "val/cat.8.png", "train/@eaDir/cat.0.png/SYNOPHOTO_THUMB_1.jpg"),
    )
    source = open_source(str(folder), asked=Reading(labels_from_names=True))
    assert (source.classes, source.parts) == (("cat", "dog"), {"train", "val", "test"})
    items = source.open_part("train")
    assert list(zip(items.names, items.labels.tolist(), strict=True)) == [
        ("train/cat.0.png", 0),
        ("train/cat.1.png", 0),
        ("train/dog.0.png", 1),
        ("train/deep/dog.1.png", 1),
    ]
    assert items.read(2) == (folder / "train/dog.0.png").read_bytes()
    assert source.open_part("test").labels.tolist() == [1]
    assert source.open_part("val").labels.tolist() == [0]
    assert source.notes == ("left out: 1 file that other programs left (@eaDir)",)


def test_test_part_of_numbers_is_left_out(tmp_path: Path) -> None:
    names = [f"train/{name}.{number}.png" for name in ("cat", "dog") for number in range(3)]
    folder = heap(tmp_path / "d", *names, "test/1.png", "test/2.png")
    source = open_source(str(folder), asked=Reading(labels_from_names=True))
    assert source.parts == {"train"}
    assert source.unlabelled == (str(folder / "test"),)
    assert np.bincount(source.open_part("train").labels).tolist() == [3, 3]


@pytest.mark.parametrize("stray", ["test/wolf.1.png", "test/nobody.png"])
def test_test_part_with_another_name_is_a_fault(tmp_path: Path, stray: str) -> None:
    folder = heap(tmp_path / "d", "train/cat.0.png", "train/dog.0.png", "test/dog.1.png", stray)
    source = open_source(str(folder), asked=Reading(labels_from_names=True))
    assert len(source.open_part("train")) == 2
    with pytest.raises(DataError, match=r"has a class that train lacks: '(wolf|nobody.png)'"):
        source.check_part("test")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat_1.png", "dog_1.png", "me.png"], "1 of 3 say no class, the first 'me.png'; expected"),
        (["IMG_1.png", "IMG_2.png"], r"say one class only \('IMG'\)"),
        (["Cat_1.png", "cat_2.png"], "'Cat' and 'cat' differ only by upper and lower case"),
        (["notes.txt"], "no images at '.*'; expected a class, a separator and a number, as in cat"),
    ],
)
def test_names_that_give_no_classes_are_told(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(str(heap(tmp_path / "d", *names)), asked=Reading(labels_from_names=True))


@pytest.mark.parametrize("data", ["digits", "cifar10", "labels.csv"])
def test_what_says_its_labels_itself_does_not_take_the_flag(data: str) -> None:
    with pytest.raises(DataError, match=f"--labels-from-names: '{data}' already says what"):
        open_source(data, asked=Reading(labels_from_names=True))


OFFER = "; their names would give 2 classes: dog 3, cat 2, if you add --labels-from-names"
LABELLED = ("dog.1.png", "dog.2.png", "dog.3.png", "cat_1.png", "cat_2.png")


@pytest.mark.parametrize("part", ["", "train/", "images/"])
def test_a_heap_is_told_what_to_do_and_what_its_names_would_give(tmp_path: Path, part: str) -> None:
    folder = heap(tmp_path / "d", *(part + name for name in LABELLED))
    with pytest.raises(DataError, match=re.escape(OFFER) + "$") as told:
        open_source(str(folder))
    if part == "images/":
        assert "holds one class only ('images')" in str(told.value)
    else:
        assert (
            "with 10 images or more in each, train on these and let `thawnet predict` sort"
            in str(told.value)
        )
    assert open_source(str(folder), asked=Reading(labels_from_names=True)).classes == ("cat", "dog")


def test_pets_beside_their_annotations_are_offered_their_names(tmp_path: Path) -> None:
    folder = heap(tmp_path / "pets", *(f"images/{name}" for name in LABELLED))
    (folder / "annotations").mkdir()
    (folder / "annotations" / "list.txt").write_text("x")
    with pytest.raises(DataError, match="annotations' holds no image.*" + re.escape(OFFER)):
        open_source(str(folder))
    assert open_source(str(folder), asked=Reading(labels_from_names=True)).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "names", [("1.png", "2.png"), ("IMG_1.png", "IMG_2.png"), (*LABELLED, "wolf_1.png")]
)
def test_names_that_are_hardly_labels_are_not_offered(tmp_path: Path, names: list[str]) -> None:
    folder = heap(tmp_path / "d", *names)
    with pytest.raises(DataError, match=r"in a CSV file with the columns path,label$"):
        open_source(str(folder))


@pytest.mark.parametrize(
    "names",
    [
        ("IMG_0001", "IMG_0002", "PXL_20260614_101112", "PXL_20260614_101113"),
        ("DSC00017", "DSC00018", "DSCN_1", "DSCN_2"),
        ("photo (1)", "photo (2)", "image-3", "image-4"),
        (
            "IMG-20260614-WA0001",
            "IMG-20260614-WA0002",
            "IMG-20260615-WA0001",
            "IMG-20260615-WA0002",
        ),
    ],
)
def test_names_that_cameras_give_are_not_offered_as_classes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(DataError) as told:
        open_source(str(heap(tmp_path / "d", *(f"{name}.png" for name in names))))
    assert "--labels-from-names" not in str(told.value)
