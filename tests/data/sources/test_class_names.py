"""Names given to classes: files of several forms, and what they cannot mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from thawnet.core.errors import DataError
from thawnet.data.items import Source
from thawnet.data.reading import Reading
from thawnet.data.sources.open import open_source

Photos = Callable[..., Path]
Named = Callable[[str], Source]


@pytest.fixture
def named(photos: Photos, tmp_path: Path) -> Named:
    """Return a function that opens folders n01 (2), n02 (3), n02 wild (1) under a file of names."""
    folder = photos({"n01": 2, "n02": 3, "n02 wild": 1})

    def open_under(text: str) -> Source:
        path = tmp_path / "names.txt"
        path.write_text(text, encoding="utf-8")
        return open_source(str(folder), asked=Reading(class_names=path))

    return open_under


@pytest.mark.parametrize(
    "text",
    [
        "n01 zebra\nn02 gnu, wildebeest\nn02 wild Äffin\nn99 not here\n",
        "n01,zebra\r\nn02\tgnu, wildebeest\r\nn02 wild: Äffin\r\n",
        '\ufeffn01 = "zebra"\nn02;"gnu, wildebeest"\n"n02 wild",Äffin',
        "n01 -> zebra\nn02 => gnu, wildebeest\nn02 wild->Äffin",
        json.dumps({"n01": "zebra", "n02": "gnu, wildebeest", "n02 wild": "Äffin"}),
        json.dumps(
            dict(enumerate([["n01", "zebra"], ["n02", "gnu, wildebeest"], ["n02 wild", "Äffin"]]))
        ),
    ],
)
def test_classes_get_the_names_of_the_file_and_their_own_images(named: Named, text: str) -> None:
    source = named(text)
    assert source.classes == ("gnu, wildebeest", "zebra", "Äffin")
    items = source.open_part("train")
    folders = [name.split("/")[0] for name in items.names]
    labels = {"n01": 1, "n02": 0, "n02 wild": 2}
    assert items.labels.tolist() == [labels[folder] for folder in folders]
    assert source.notes == ()


def test_classes_of_one_name_are_one_and_the_rest_keep_theirs(named: Named) -> None:
    source = named("n02 gnu\nn02 wild gnu\n")
    assert source.classes == ("gnu", "n01")
    assert source.open_part("train").labels.tolist() == [1, 1, 0, 0, 0, 0]
    assert source.notes == (
        "'names.txt' has no name for 1 class, as 'n01'",
        "'names.txt' makes 3 classes 2: some share a name",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog\ncat\n", "names none of the classes of 'photos', such as 'n01'; expected lines as"),
        ("n01 a\nn02 a\nn02 wild a\n", "gives every class the name 'a'; keep two at least"),
        ('{"n01": 5}', "is neither lines of text, as 'n01440764 tench', nor a JSON object"),
        ('{"n01": ', "is neither lines of text"),
        ("n01 a\nn01 b\nn02 c\n", "gives 'n01' two names; keep one"),
        ("n01 cat\nn02 Cat\n", "'Cat' and 'cat' differ only by upper and lower case"),
    ],
)
def test_file_that_names_no_classes_is_told(named: Named, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        named(text)


def test_missing_file_of_names_is_told(photos: Photos, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--class-names 'gone.txt' cannot be read: No such file"):
        open_source(str(photos({"a": 2, "b": 2})), asked=Reading(class_names=Path("gone.txt")))


def test_names_of_another_encoding_are_read_as_a_table_is(photos: Photos, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("a Gänse\n".encode("cp1252"))
    source = open_source(str(photos({"a": 2, "b": 2})), asked=Reading(class_names=path))
    assert source.classes == ("Gänse", "b")
