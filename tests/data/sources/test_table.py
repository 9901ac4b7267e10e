"""CSV tables: what they may say, and the message for each mistake in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.photos import draw, write_photos
from support.shares import HELD_BACK
from thawnet.core.errors import DataError
from thawnet.data.items import Source
from thawnet.data.reading import AS_IT_IS, Reading
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange
from thawnet.data.store import open_store
from thawnet.image.preprocess import Reduction

Photos = Callable[..., Path]
Opened = Callable[..., Source]


@pytest.fixture
def opened(photos: Photos) -> Opened:
    """Return a function that writes a table beside a/000.png .. b/003.png and opens it."""
    folder = photos({"a": 4, "b": 4})

    def write(
        *lines: str, encoding: str = "utf-8", end: str = "\n", asked: Reading = AS_IT_IS
    ) -> Source:
        path = folder / "table.csv"
        path.write_bytes(end.join([*lines, ""]).encode(encoding))
        return open_source(str(path), asked=asked)

    return write


LONE = "left out: 4 images without a row, such as '002.png'"  # of the 8 that are there
GOOD = ("a/000.png,cat", "a/001.png,cat", "b/000.png,dog", "b/001.png,dog")


def test_table_gives_labels_and_images_in_order(opened: Opened) -> None:
    source = opened("path,label", "b/001.png,dog", "a/002.png,cat", "", "b/000.png,dog")
    items = source.open_part("train")
    assert (source.name, source.classes, source.parts) == ("table", ("cat", "dog"), {"train"})
    assert items.labels.tolist() == [1, 0, 1]
    assert list(items.names) == ["b/001.png", "a/002.png", "b/000.png"]
    store = open_store(items, Reduction(40), lambda done: None, 2)
    assert (store.batch(np.array([1]))[0] == np.asarray(draw(0, 2))).all()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bom_line_ends_quotes_and_spaces_are_no_part_of_a_name(
    opened: Opened, encoding: str, end: str
) -> None:
    source = opened(
        "Path, Label", *GOOD[:2], 'b/000.png, "dog, wet "', 'b/001.png,"dog, wet"',
        encoding=encoding, end=end,
    )  # fmt: skip
    assert source.classes == ("cat", "dog, wet")


def test_label_is_a_name_and_never_a_path(opened: Opened) -> None:
    source = opened("path,label", *GOOD, "b/002.png,../../etc/passwd", "b/003.png,chien à poil")
    assert source.classes == ("../../etc/passwd", "cat", "chien à poil", "dog")
    items = source.open_part("train")
    assert len(open_store(items, Reduction(40), lambda done: None, 2)) == 6


def test_images_may_lie_outside_the_folder_of_the_users_own_table(
    photos: Photos, tmp_path: Path
) -> None:
    folder = photos({"a": 2, "b": 2})
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists" / "t.csv"
    table.write_text(f"path,label\n../photos/a/000.png,x\n{folder / 'b' / '000.png'},y\n")
    items = open_source(str(table)).open_part("train")
    assert items.read(1) == (folder / "b" / "000.png").read_bytes()


def test_split_column_makes_the_parts(opened: Opened) -> None:
    source = opened(
        "label,path,split", "cat,a/000.png,", "dog,b/000.png,Train", "cat,a/001.png,VALID",
        "dog,b/001.png,validation", "cat,a/002.png,test", "dog,b/002.png,Test", "dog,b/003.png,val",
    )  # fmt: skip
    assert source.parts == {"train", "val", "test"}
    lists = arrange(source, HELD_BACK)
    assert lists.val is not None
    assert (len(lists.train), len(lists.val), len(lists.test())) == (2, 3, 2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), r"table.csv' is empty; expected a header, as in path,label, and rows"),
        (("path,label",), "has no rows below its header"),
        (
            ("when,sex,breed", "1,f,cat", "2,f,dog", "3,m,cat"),
            r"has 'when', 'sex', 'breed'; which of them names image files that exist is not clear: "
            r"say it with --image-column NAME, and where they lie with --images FOLDER",
        ),
        (
            ("front,back,label", "a/000.png,a/001.png,cat", "b/000.png,b/001.png,dog"),
            r"which of them names the images is not clear: say it with --image-column NAME$",
        ),
        (
            ("path,sex,coat", *(f"{each},{'fm'[i % 2]}" for i, each in enumerate(GOOD * 2))),
            r"which of them holds the classes is not clear: say it with --label-column NAME: "
            r"'sex' \(2 different values in the first 8 rows\), 'coat' \(2 different",
        ),
        (("path,label,label", "a,b,c"), "one of them twice"),
        (("path,label", *GOOD, "a/002.png,", "a/003.png"), "lines 6, 7: no label; add one"),
        (("path,label", GOOD[0], ",cat"), "line 3: no path"),
        (("path,label", GOOD[0], "a\0b,cat"), "line 3: no path"),
        (("path,label", "a/000.png,cat, wet"), r"line 2: 3 values for 2 columns; put quotes"),
        (("path,label", GOOD[0], '"a/001.png,cat'), "line 3: not a row of a CSV"),
        (
            ("path,label,split", "a/000.png,cat,train", "b/000.png,dog,trian"),
            "line 3: split 'trian' is unknown; allowed are train, training, val, valid, "
            "validation, validate, dev, test, testing",
        ),
        (
            ("path,label,split", "a/000.png,cat,train", "a/001.png,bat,train", "b/000.png,at,test"),
            r"line 4: no train row has the class 'at'; the nearest are 'cat', 'bat'",
        ),
        (("path,label", "a/000.png,cat", "a/001.png,cat"), r"names one class only \('cat'\)"),
        (("path,label", *GOOD, "a/002.png,Cat"), "'Cat' and 'cat' differ only by upper and lower"),
        (
            ("path,label", *GOOD, "./a/000.png,dog"),
            "lines 2, 6: the same file 'a/000.png' with another label; keep one",
        ),
        (("path,label", 'a/000.png,"big\ncat"', "a/001.png,", "b/000.png,dog"), "line 4: no label"),
        (
            ("path,label", "x/1.png,cat", "x/2.png,cat", "x/3.png,dog", "b/000.png,dog"),
            r"3 of 4 files do not exist; .*line 2, .*photos/x/1.png'",
        ),
        (
            ("path,label", *GOOD, "x/1.png,pig"),
            "none of the 1 train files of class 'pig' exists; .*x/1",
        ),
        (
            ("path,label,split", *GOOD, "x/1.png,cat,test"),
            "none of the 1 test files of class 'cat' exists",
        ),
    ],
)
def test_mistake_in_a_table_is_told_with_its_line(
    opened: Opened, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        opened(*lines)


NAMES = ("image", "a/000.png", "a/001.png", "b/000.png", "b/001.png")
LABELS = ("label", "Äpfel", "Äpfel", "Köttur", "Köttur")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_encoding_and_separator_gives_the_same_classes(
    opened: Opened, separator: str, encoding: str, end: str
) -> None:
    rows = [separator.join(row) for row in zip(NAMES, LABELS, strict=True)]
    source = opened(*rows, encoding=encoding, end=end)
    assert source.classes == ("Köttur", "Äpfel")
    assert source.open_part("train").labels.tolist() == [1, 1, 0, 0]
    told = [note for note in source.notes if "read as Windows-1252" in note]
    assert len(told) == (encoding == "cp1252")


def test_line_of_excel_that_names_the_separator_is_no_header(opened: Opened) -> None:
    source = opened("sep=;", *(";".join(row) for row in zip(NAMES, LABELS, strict=True)))
    assert source.classes == ("Köttur", "Äpfel")


def test_file_that_is_no_text_is_told_with_its_line(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes(b"path,label\na.png,b\nc.png,\x81\xff\n")
    with pytest.raises(DataError, match=r"not text of a known encoding \(line 3\); save it as"):
        open_source(str(path))


@pytest.mark.parametrize(
    ("header", "images", "classes"),
    [
        ("image,label", 0, 1),
        ("id,breed", 0, 1),
        ("Label,Filename", 1, 0),
        ("species,picture file", 1, 0),
        ("class,image_id", 1, 0),
        ("x,y", 0, 1),
        ("path,what it is", 0, 1),
    ],
)
def test_columns_are_recognised_by_their_names_and_values(
    opened: Opened, header: str, images: int, classes: int
) -> None:
    rows = [line.split(",") for line in GOOD]
    lines = [",".join((row[images], row[classes])) for row in rows]
    source = opened(header, *lines)
    assert source.classes == ("cat", "dog")
    assert list(source.open_part("train").names) == [row[0] for row in rows]
    assert source.notes[0] == (
        f"'table.csv': images from column '{header.split(',')[images]}', classes from "
        f"'{header.split(',')[classes]}'"
    )


def test_table_without_a_header_is_read_from_its_first_row(opened: Opened) -> None:
    source = opened(*GOOD)
    assert (source.classes, len(source.open_part("train"))) == (("cat", "dog"), 4)


def test_further_columns_and_pandas_index_are_passed_over_and_said(opened: Opened) -> None:
    rows = (f"{number},{each},{'fm'[number % 2]},0.5" for number, each in enumerate(GOOD))
    source = opened(",path,label,sex,weight", *rows)
    assert source.classes == ("cat", "dog")
    assert source.notes == (
        "'table.csv': images from column 'path', classes from 'label'; not used: 'sex', 'weight'",
        LONE,
    )


def test_columns_that_were_asked_for_win(opened: Opened) -> None:
    rows = ("front,back,coat,sex", "a/000.png,b/000.png,red,f", "a/001.png,b/001.png,blue,m")
    source = opened(*rows, asked=Reading(image_column="back", label_column="Sex"))
    assert (source.classes, list(source.open_part("train").names)) == (
        ("f", "m"),
        ["b/000.png", "b/001.png"],
    )
    with pytest.raises(DataError, match=r"--label-column 'coats' is none of them; .*'coat'"):
        opened(*rows, asked=Reading(image_column="back", label_column="coats"))
    with pytest.raises(DataError, match="'back' cannot be both image and label"):
        opened(*rows, asked=Reading(image_column="back", label_column="back"))


@pytest.mark.parametrize("column", ["set,train,test", "is_valid,False,True", "Usage,Training,val"])
def test_part_columns_of_others_make_the_parts(opened: Opened, column: str) -> None:
    name, first, second = column.split(",")
    rows = (f"{each},{part}" for each, part in zip(GOOD, (first, second) * 2, strict=True))
    source = opened(f"image,label,{name}", *rows)
    assert len(source.parts) == 2
    assert len(source.open_part("train")) == 2


@pytest.mark.parametrize("nothing", ["", "nan", "NaN", "null", "N/A"])
def test_cell_without_a_label_is_never_a_class(opened: Opened, nothing: str) -> None:
    with pytest.raises(DataError, match="line 6: no label; add one or remove the row"):
        opened("path,label", *GOOD, f"a/002.png,{nothing}")


def test_part_without_labels_is_left_out_and_said(opened: Opened) -> None:
    source = opened(
        "path,label,split",
        *(f"{each},train" for each in GOOD),
        "a/002.png,,test",
        "a/003.png,,test",
    )
    assert (source.parts, source.classes) == ({"train"}, ("cat", "dog"))
    assert source.notes[0] == ("the test part is left out: none of its 2 rows has a label")


@pytest.mark.parametrize(
    "way",
    [
        "C:\\Users\\me\\photos\\{}.png",
        "/mnt/gone/photos/{}.png",
        "..\\photos\\{}",
        "{}",
        "{}.PNG",
        "photos/{}.png",
    ],
)
def test_names_of_other_systems_and_without_endings_are_found(opened: Opened, way: str) -> None:
    names = [name.removesuffix(".png") for name in NAMES[1:]]
    said = [way.format(name.replace("/", "\\") if "\\" in way else name) for name in names]
    source = opened("id,label", *map(",".join, zip(said, LABELS[1:], strict=True)))
    items = source.open_part("train")
    assert list(items.names) == list(NAMES[1:])
    assert items.labels.tolist() == [1, 1, 0, 0]
    assert (
        f"'table.csv' names '{said[0]}', which is found as 'a/000.png', and so on" in source.notes
    )


def test_table_of_a_contest_finds_its_images_in_the_folder_of_its_name(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_photos(tmp_path / "made", {part: 6})
        (tmp_path / "made" / part).rename(tmp_path / part)
        (tmp_path / "made").rmdir()
    (tmp_path / "train.csv").write_text(
        "id,breed\n" + "".join(f"{number:03d},{'ab'[number % 2]}\n" for number in range(6))
    )
    source = open_source(str(tmp_path / "train.csv"))
    assert list(source.open_part("train").names)[:2] == ["train/000.png", "train/001.png"]
    (tmp_path / "train.csv").rename(tmp_path / "labels.csv")
    (tmp_path / "train").rename(tmp_path / "left")
    with pytest.raises(DataError, match="'000' and others lie in 'left' and 'test' below"):
        open_source(str(tmp_path / "labels.csv"))
    source = open_source(str(tmp_path / "labels.csv"), asked=Reading(images=tmp_path / "test"))
    assert source.open_part("train").read(0) == (tmp_path / "test/000.png").read_bytes()


def test_name_without_an_ending_that_two_files_have_is_told(opened: Opened, photos: Photos) -> None:
    folder = photos({"c": 2}, "more")
    for ending in ("png", "jpg"):
        (folder / f"x.{ending}").write_bytes((folder / "c/000.png").read_bytes())
    (folder / "t.csv").write_text("id,label\nc/000,cat\nx,dog\nc/001,cat\n")
    with pytest.raises(
        DataError, match=r"'x' may be 'x.jpg' or 'x.png' in .*; name the file whole"
    ):
        open_source(str(folder / "t.csv"))


def test_missing_files_are_broken_images_and_left_out(opened: Opened) -> None:
    source = opened("path,label", *GOOD, "b/gone.png,dog", f"{'b' * 999}.png,dog", "a,dog")
    store = open_store(source.open_part("train"), Reduction(40), lambda done: None, 2)
    assert store.broken[0] == ("b/gone.png", "no such file")
    assert [reason for _, reason in store.broken[1:]] == ["File name too long", "not a file"]
    assert len(store) == 4


def test_repeated_rows_count_once_and_are_said(opened: Opened) -> None:
    source = opened("path,label", *GOOD, "b/../b/000.png,dog")
    assert len(source.open_part("train")) == 4
    assert source.notes == ("1 row left out: another says the same", LONE)


def test_file_and_group_in_two_parts_are_said(opened: Opened) -> None:
    source = opened(
        "path,label,split,group", "a/000.png,cat,train,g1", "a/001.png,cat,test,g1",
        "b/000.png,dog,train,", "b/001.png,dog,test,", "b/000.png,dog,test,",
    )  # fmt: skip
    assert source.notes[0] == "1 file listed in more than one part of the split column"
    assert source.notes[-1].startswith("images of 1 group are in more than one part")
    groups = source.open_part("train").groups
    assert groups is not None
    assert groups.tolist() == [0, -1]


def test_table_of_test_rows_alone_can_be_measured_on_and_not_trained_on(opened: Opened) -> None:
    source = opened("path,label,split", *(f"{each},test" for each in GOOD))
    assert (source.parts, len(source.open_part("test"))) == ({"test"}, 4)
    with pytest.raises(
        DataError, match="'table' names no images to train on, only test; thawnet ev"
    ):
        arrange(source, HELD_BACK)
