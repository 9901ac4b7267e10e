"""Folders as people and their programs leave them: each is read right, or told in a sentence."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.photos import heap
from thawnet.core.errors import DataError
from thawnet.data.items import Source
from thawnet.data.reading import Reading
from thawnet.data.sources.layout import SORTED
from thawnet.data.sources.open import open_source
from thawnet.data.splits import check_parts

Photos = Callable[..., Path]
PAIR = {"cat": 3, "dog": 3}


def counts(source: Source, part: str = "train") -> dict[str, int]:
    labels = source.open_part(part).labels
    return dict(zip(source.classes, np.bincount(labels).tolist(), strict=True))


def packed(folder: Path, kind: str) -> Path:
    """Return a folder itself, or an archive of what is in it."""
    if kind == "folder":
        return folder
    return Path(shutil.make_archive(str(folder.parent / "packed"), kind, folder))


# --- parts without labels -----------------------------------------------------------------------


@pytest.mark.parametrize("part", ["test", "val"])
@pytest.mark.parametrize(
    "names", [("1.png", "2.png"), ("unknown/1.png", "2.png"), ("a/b/1.png", "c/2.png")]
)
def test_part_without_labels_is_left_out_and_named_for_predict(
    photos: Photos, part: str, names: tuple[str, ...]
) -> None:
    folder = photos(PAIR, "d/train").parent
    heap(folder / part, *names)
    source = open_source(str(folder))
    assert source.parts == {"train"}
    assert source.unlabelled == (str(folder / part),)
    assert source.notes == (
        f"left out: '{folder / part}', 2 images without a class of train; thawnet predict can "
        "classify them",
    )


@pytest.mark.parametrize("folders", [(), ("cat", "dog"), ("empty/deep",)])
def test_part_without_images_is_left_out(photos: Photos, folders: tuple[str, ...]) -> None:
    folder = photos(PAIR, "d/train").parent
    for name in ("", *folders):
        (folder / "test" / name).mkdir(parents=True)
    source = open_source(str(folder))
    assert (source.parts, source.unlabelled) == ({"train"}, ())
    assert source.notes == (f"left out: '{folder / 'test'}', which holds no image",)


@pytest.mark.parametrize("names", [("Cat", "Dog"), ("cats", "dogs"), ("cat", "wolf")])
def test_part_with_classes_that_are_meant_otherwise_stays_a_fault(
    photos: Photos, names: tuple[str, ...]
) -> None:
    folder = photos(PAIR, "d/train").parent
    photos(dict.fromkeys(names, 2), "d/test")
    source = open_source(str(folder))
    with pytest.raises(DataError, match=r"has a class that train lacks: '.*; --no-test trains"):
        check_parts(source, tested=True)
    check_parts(source, tested=False)
    assert counts(source) == PAIR


# --- where the data set lies --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("beside", [(), ("README.md", ".DS_Store"), ("p/d/preview.png",)])
def test_single_folder_on_the_way_to_the_data_is_entered(
    photos: Photos, tmp_path: Path, kind: str, beside: tuple[str, ...]
) -> None:
    photos(PAIR, "above/p/d/train")
    photos({"cat": 1, "dog": 2}, "above/p/d/test", start=50)
    for name in beside:
        (tmp_path / "above" / name).write_text("x")
    source = open_source(str(packed(tmp_path / "above", kind)))
    assert counts(source) == PAIR
    assert counts(source, "test") == {"cat": 1, "dog": 2}
    assert source.name == ("above" if kind == "folder" else "packed")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_single_folder_that_is_a_class_is_no_data_set(
    photos: Photos, tmp_path: Path, kind: str
) -> None:
    folder = photos({"cat": 3}, "d")
    heap(folder / "cat", "indoor/1.png", "outdoor/2.png")
    with pytest.raises(DataError, match=r"holds one class only \('cat'\)"):
        open_source(str(packed(folder, kind)))


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_data_sets_beside_each_other_are_named(photos: Photos, tmp_path: Path, kind: str) -> None:
    for name in ("birds", "flowers"):
        photos(PAIR, f"above/{name}/train")
    with pytest.raises(
        DataError,
        match=r"holds data sets and no classes: '.*birds', '.*flowers' have their own train/; give",
    ):
        open_source(str(packed(tmp_path / "above", kind)))


def test_parts_below_classes_are_not_mixed(photos: Photos, tmp_path: Path) -> None:
    for name in PAIR:
        photos({"train": 2, "test": 1}, f"d/{name}")
    with pytest.raises(DataError, match=r"hold parts, as in 'cat/train/'; .* to train/cat/"):
        open_source(str(tmp_path / "d"))


@pytest.mark.parametrize("other", ["test1", "Test", "test_images", "unlabeled"])
def test_part_under_another_name_is_no_class(photos: Photos, tmp_path: Path, other: str) -> None:
    folder = photos({"cat": 2, "dog": 2}, "d/train").parent
    heap(folder, f"{other}/1.png", f"{other}/2.png")
    source = open_source(str(folder))
    assert (source.parts, source.classes) == ({"train"}, ("cat", "dog"))
    assert source.unlabelled == (str(folder / other),)
    assert source.notes[0].startswith(f"left out: '{folder / other}', 2 images without a class")
    heap(folder, f"{other}/cat/1.png")
    with pytest.raises(DataError, match="name the parts train/, val/ and test/, and move"):
        open_source(str(folder))


def test_classes_of_names_in_a_part_under_another_name_are_told(tmp_path: Path) -> None:
    names = ("cat.0.png", "dog.0.png", "cat.1.png")
    heap(tmp_path / "d", *(f"train/{name}" for name in names), *(f"test1/{n}" for n in names))
    with pytest.raises(DataError, match="test1' holds images with classes; call it test/ or val/"):
        open_source(str(tmp_path / "d"), asked=Reading(labels_from_names=True))


def test_folder_whose_one_table_names_its_images_is_read_by_it(
    photos: Photos, tmp_path: Path
) -> None:
    folder = photos({"train": 4, "test": 3}, "d")
    (folder / "labels.csv").write_text("id,breed\n000,a\n001,b\n002,a\n003,b\n")
    (folder / "submission.csv").write_text("id,a,b\n000,0.5,0.5\n001,0.5,0.5\n")
    source = open_source(str(folder))
    assert (source.name, source.classes) == ("d", ("a", "b"))
    assert next(iter(source.open_part("train").names)) == "train/000.png"
    assert source.notes[0] == "read by its table 'labels.csv'"
    (folder / "more.csv").write_text("path,label\ntrain/000.png,x\ntrain/001.png,y\n")
    with pytest.raises(DataError, match=r"holds 'labels.csv' and 'more.csv'; give the one that"):
        open_source(str(folder))


def test_table_beside_class_folders_is_said_not_read(photos: Photos) -> None:
    folder = photos({"cat": 2, "dog": 2}, "d")
    (folder / "notes.csv").write_text("path,label\ncat/000.png,x\n")
    source = open_source(str(folder))
    assert source.classes == ("cat", "dog")
    assert source.notes == ("'notes.csv' is not read; give it instead of its folder",)


# --- what other programs leave ------------------------------------------------------------------

LEFTOVERS = (
    "@eaDir/000.png/SYNOPHOTO_THUMB_XL.jpg",
    "cat/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/old/gone.png",
    "cat/@Recycle/gone.png",
    "$RECYCLE.BIN/S-1-5-21/$R0.png",
    "cat/Catalog Previews.lrdata/1.jpg",
    "CaptureOne/Cache/Thumbnails/1.jpg",
    "cat/Thumbs.db",
    "desktop.ini",
    "__pycache__/x.pyc",
)
HIDDEN = (
    *("__MACOSX/cat/._000.png", ".DS_Store", "cat/.DS_Store", "cat/._000.png", "._cat"),
    *(".ipynb_checkpoints/1.png", "cat/.ipynb_checkpoints/000-checkpoint.png"),
    *(".thumbnails/1.png", "cat/.picasaoriginals/000.png", ".Trash-1000/files/1.png"),
)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_leftovers_are_no_class_and_no_image_and_counted_once(photos: Photos, kind: str) -> None:
    folder = photos(PAIR, "d")
    heap(folder, *LEFTOVERS, *HIDDEN[1:])
    source = open_source(str(packed(folder, kind)))
    assert counts(source) == PAIR
    (note,) = source.notes
    assert note == (
        "left out: 10 files that other programs left (@eaDir, #recycle, $RECYCLE.BIN, @Recycle, "
        "...)"
    )


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_hidden_files_are_passed_over_at_any_depth(photos: Photos, kind: str) -> None:
    folder = photos(PAIR, "d/train").parent
    heap(folder / "train", *HIDDEN)
    heap(folder, *(name for name in HIDDEN if not name.startswith("cat")))
    assert counts(open_source(str(packed(folder, kind)))) == PAIR


def test_thumbnails_in_a_test_part_do_not_make_it_one(photos: Photos) -> None:
    folder = photos(PAIR, "d/train").parent
    heap(folder / "test", "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "Thumbs.db")
    assert open_source(str(folder)).notes == (
        "left out: 2 files that other programs left (@eaDir, Thumbs.db)",
        f"left out: '{folder / 'test'}', which holds no image",
    )


@pytest.mark.parametrize("name", ["Originals", "thumbs", "recycled", "settings", "@home", "#1"])
def test_name_that_may_be_a_class_is_one(photos: Photos, name: str) -> None:
    assert set(open_source(str(photos({name: 2, "b": 2}))).classes) == {name, "b"}


# --- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["dog", "test", "test/cat"])
def test_link_whose_target_is_away_is_named(photos: Photos, tmp_path: Path, where: str) -> None:
    folder = photos(PAIR, "d" if where == "dog" else "d/train")
    folder = tmp_path / "d"
    link = folder / where
    shutil.rmtree(link, ignore_errors=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("/mnt/nas/away")
    with pytest.raises(
        DataError,
        match=rf"'{link}' is a link to '/mnt/nas/away', which is not there; mount it, or remove",
    ):
        open_source(str(folder))


def test_data_that_is_itself_such_a_link_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "d").symlink_to("/mnt/nas/away")
    with pytest.raises(DataError, match="d' is a link to '/mnt/nas/away', which is not there"):
        open_source(str(tmp_path / "d"))


def test_links_in_a_circle_are_told(photos: Photos, tmp_path: Path) -> None:
    folder = photos(PAIR, "d")
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    with pytest.raises(DataError, match=r"d/a' is a link that leads back to itself; remove it"):
        open_source(str(folder))
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "again").symlink_to(alone)
    with pytest.raises(DataError, match=r"again' is a link to a folder that holds it; remove"):
        open_source(str(alone))


def test_link_to_a_mount_that_fails_says_how(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(PAIR, "d")
    target = folder.parent / "nas"
    (folder / "far").symlink_to(target)
    real = os.stat

    def stale(path: object, **options: object) -> os.stat_result:
        if str(path).endswith("far"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(path, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", stale)
    with pytest.raises(DataError, match=r"which fails \(Stale file handle\); mount it"):
        open_source(str(folder))


def test_class_folder_that_is_a_link_is_a_class(photos: Photos, tmp_path: Path) -> None:
    elsewhere = photos({"many": 4}, "nas")
    folder = photos(PAIR, "d")
    (folder / "bird").symlink_to(elsewhere / "many")
    (folder / "LICENSE").symlink_to(tmp_path / "nas" / "many" / "000.png")
    assert counts(open_source(str(folder))) == {"bird": 4, **PAIR}


# --- names of classes ---------------------------------------------------------------------------


def test_classes_that_are_numbers_keep_their_labels_also_where_test_has_three(
    photos: Photos,
) -> None:
    few = {str(number): number + 1 for number in range(12)}
    source = open_source(str(photos(few, "few")))
    assert source.classes == ("0", "1", "10", "11", *"23456789")
    assert counts(source) == few
    photos({str(number): 1 for number in range(100)}, "many/train")
    folder = photos({"7": 1, "42": 2, "99": 3}, "many/test", start=5).parent
    many = open_source(str(folder))
    labels = [many.classes[label] for label in many.open_part("test").labels]
    assert labels == ["42"] * 2 + ["7"] + ["99"] * 3


@pytest.mark.parametrize("name", ["it's", 'the "best"', "-rf", "🐈", "שלום", "n" * 255, "a b "])
def test_odd_names_are_classes(photos: Photos, name: str) -> None:
    source = open_source(str(photos({name: 2, "b": 2})))
    assert counts(source) == {name: 2, "b": 2}


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\u202egpj", "a\u2066b"])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_names_with_codes_are_told(photos: Photos, name: str, kind: str) -> None:
    folder = photos({name: 2, "b": 2})
    with pytest.raises(DataError, match=r"class 'a\?.*' has .* in its name.*; give it another"):
        open_source(str(packed(folder, kind)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("Cat", "cat"), "'Cat' and 'cat' differ only by upper and lower case; merge"),
        (("caf\u00e9", "cafe\u0301"), "differ only in how its accents are encoded"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_classes_of_one_name_are_told_in_archives_too(
    photos: Photos, tmp_path: Path, names: tuple[str, str], message: str, kind: str
) -> None:
    image = photos({"x": 1}) / "x" / "000.png"
    path = tmp_path / "packed.tar"
    if kind == "zip":
        for name in names:
            (tmp_path / "d" / name).mkdir(parents=True)
            shutil.copy(image, tmp_path / "d" / name)
        path = packed(tmp_path / "d", "zip")
    else:
        with tarfile.open(path, "w") as file:
            for name in names:
                file.add(image, f"{name}/1.png")
    with pytest.raises(DataError, match=f"packed.*, unpacked: .*{message}"):
        open_source(str(path))


# --- found by newcomers -------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["train.csv", "Labels.CSV"])
def test_parts_called_images_are_no_classes_and_the_table_beside_them_is_read(
    photos: Photos, table: str
) -> None:
    folder = photos({"train_images": 4, "test_images": 3}, "d")
    with pytest.raises(DataError, match="holds test_images/ and train_images/ but no train/"):
        open_source(str(folder))
    rows = "".join(f"{number:03d},{'ab'[number % 2]}\n" for number in range(4))
    (folder / table).write_text(f"image_id,label\n{rows}")
    (folder / "sample_submission.csv").write_text("image_id,label\n000,0\n001,1\n")
    source = open_source(str(folder))
    assert source.classes == ("a", "b")
    assert set(source.open_part("train").names) == {f"train_images/{n:03d}.png" for n in range(4)}
    untold = str(folder / "test_images")
    assert source.unlabelled == (untold,)  # which the end of a run predicts
    assert f"left out: '{untold}', which the table says nothing of" in source.notes


def test_answer_that_a_contest_asks_for_is_no_table_of_labels(tmp_path: Path) -> None:
    names = (f"train/{name}.{number}.png" for name in ("cat", "dog") for number in range(3))
    folder = heap(tmp_path / "d", *names, "test1/1.png", "test1/2.png")
    (folder / "sampleSubmission.csv").write_text("id,label\n1,0\n2,1\n")
    with pytest.raises(DataError, match=r"classes: cat 3, dog 3, if you add --labels-from-names$"):
        open_source(str(folder))


@pytest.mark.parametrize("other", ["a.csv", "train.zip"])
def test_what_else_could_be_meant_is_named(photos: Photos, other: str) -> None:
    folder = photos({"pictures": 3}, "d")
    (folder / other).write_text("when,where\n1,2\n")
    with pytest.raises(
        DataError, match=rf"one class only .*; or give what else is there: '.*{other}'"
    ):
        open_source(str(folder))


def test_empty_class_folder_is_left_out_and_said(photos: Photos) -> None:
    folder = photos({"cat": 2, "dog": 3, "new folder": 0}, "d")
    (folder / "new folder" / "Thumbs.db").touch()
    source = open_source(str(folder))
    assert source.classes == ("cat", "dog")
    assert source.open_part("train").labels.tolist() == [0, 0, 1, 1, 1]
    assert f"left out: class folder '{folder / 'new folder'}', which holds no image" in source.notes


def test_class_that_is_tested_needs_images_to_learn_from(photos: Photos) -> None:
    folder = photos({"cat": 2, "dog": 3, "eel": 0}, "d/train").parent
    photos({"eel": 1, "cat": 1}, "d/test")
    with pytest.raises(DataError, match="train/eel' holds no image; add images or remove it"):
        open_source(str(folder))


def test_labels_that_a_network_gave_are_said_to_be_its_own(photos: Photos) -> None:
    folder = photos({"cat": 2, "dog": 3}, "d")
    (folder / SORTED).write_text("image,folder\n")
    assert any(
        "correct the folders by hand first" in note for note in open_source(str(folder)).notes
    )
