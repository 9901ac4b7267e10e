"""CSV tables: what they may say, and the message for each mistake in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.photos import draw
from support.shares import HELD_BACK
from thawnet.core.errors import DataError
from thawnet.data.items import Source
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

    def write(*lines: str, encoding: str = "utf-8", end: str = "\n") -> Source:
        path = folder / "table.csv"
        path.write_bytes(end.join([*lines, ""]).encode(encoding))
        return open_source(str(path))

    return write


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
        ((), r"table.csv' is empty; expected path,label"),
        (("path,label",), "has no rows below its header"),
        (("file,class", *GOOD), r"the header has 'file', 'class'; expected path,label"),
        (("path;label", "a;b"), r"has 'path;label'; .* separated by commas"),
        (("path,label,fold", "a,b,c"), r"has 'path', 'label', 'fold'; unknown is 'fold'"),
        (("path,label,label", "a,b,c"), "one of them twice"),
        (("path,label", *GOOD, "a/002.png,", "a/003.png"), "lines 6, 7: no label; add one"),
        (("path,label", GOOD[0], ",cat"), "line 3: no path"),
        (("path,label", GOOD[0], "a\0b,cat"), "line 3: no path"),
        (("path,label", "a/000.png,cat, wet"), r"line 2: 3 values for 2 columns; put quotes"),
        (("path,label", GOOD[0], '"a/001.png,cat'), "line 3: not a row of a CSV"),
        (
            ("path,label,split", "a/000.png,cat,train", "b/000.png,dog,trian"),
            "line 3: split 'trian' is unknown; allowed are train, val, valid, validation, test",
        ),
        (
            ("path,label,split", "a/000.png,cat,val", "b/000.png,dog,test"),
            "names no train rows, only val and test",
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


def test_table_that_is_no_utf8_is_told_how_to_save_it(opened: Opened) -> None:
    with pytest.raises(DataError, match=r"not UTF-8 text .*save it as 'CSV UTF-8'"):
        opened("path,label", "a/000.png,köttur", encoding="utf-16")


def test_missing_files_are_broken_images_and_left_out(opened: Opened) -> None:
    source = opened("path,label", *GOOD, "b/gone.png,dog", f"{'b' * 999}.png,dog", "a,dog")
    store = open_store(source.open_part("train"), Reduction(40), lambda done: None, 2)
    assert store.broken[0] == ("b/gone.png", "no such file")
    assert [reason for _, reason in store.broken[1:]] == ["File name too long", "not a file"]
    assert len(store) == 4


def test_repeated_rows_count_once_and_are_said(opened: Opened) -> None:
    source = opened("path,label", *GOOD, "b/../b/000.png,dog")
    assert len(source.open_part("train")) == 4
    assert source.notes == ("1 rows that repeat another are left out",)


def test_file_and_group_in_two_parts_are_said(opened: Opened) -> None:
    source = opened(
        "path,label,split,group", "a/000.png,cat,train,g1", "a/001.png,cat,test,g1",
        "b/000.png,dog,train,", "b/001.png,dog,test,", "b/000.png,dog,test,",
    )  # fmt: skip
    assert source.notes[0] == "1 files are listed in more than one part of the split column"
    assert source.notes[1].startswith("images of 1 group are in more than one part")
    groups = source.open_part("train").groups
    assert groups is not None
    assert groups.tolist() == [0, -1]
