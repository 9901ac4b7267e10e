"""Names in zips, as Windows, macOS, Info-ZIP and Python's zipfile write them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from support.photos import draw, encoded
from thawnet.core.errors import DataError
from thawnet.core.files import cache_entries
from thawnet.data.sources.open import open_source


class RawInfo(zipfile.ZipInfo):
    """An entry whose name is written as the bytes that some program would write."""

    raw: bytes
    flags = 0

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's own
        return self.raw, self.flags


def entry(name: str, encoding: str = "utf-8", flags: int = 0, path: bytes | None = None) -> RawInfo:
    """Return an entry; path: the bytes in its Unicode path field, if it has one."""
    info = RawInfo(name)
    info.raw, info.flags = name.encode(encoding), flags
    if path is not None:
        content = struct.pack("<BI", 1, zlib.crc32(info.raw)) + path
        info.extra = struct.pack("<HH", 0x7075, len(content)) + content
    return info


def zip_of(path: Path, *entries: RawInfo) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for number, info in enumerate(entries):
            folder = info.raw.endswith((b"/", b"\\"))
            file.writestr(info, b"" if folder else encoded(draw(0, number)))
    return path


def classes(path: Path, *entries: RawInfo) -> tuple[str, ...]:
    return open_source(str(zip_of(path / "d.zip", *entries))).classes


def test_folders_with_backslashes_are_folders(tmp_path: Path) -> None:
    names = ["p\\", "p\\rose\\", "p\\rose\\1.png", "p\\tulip\\", "p\\tulip\\1.png"]
    assert classes(tmp_path, *map(entry, names)) == ("rose", "tulip")


def test_names_that_say_their_encoding_are_read_by_it(tmp_path: Path) -> None:
    entries = [entry("köttur/1.png", flags=1 << 11), entry("猫/1.png", flags=1 << 11)]
    assert classes(tmp_path, *entries) == ("köttur", "猫")


def test_folders_of_an_unknown_code_page_keep_no_image_away(tmp_path: Path) -> None:
    # As Python 3.14 packs: folders in cp437, what is in them in UTF-8.
    folder = entry("köttur/", "cp437")
    found = [entry("köttur/1.png", flags=1 << 11), entry("cat/1.png")]
    assert classes(tmp_path, folder, *found) == ("cat", "köttur")


def test_name_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    odd = entry("cat/1.png")
    odd.raw = b"\0\xff.png"
    with pytest.raises(DataError, match="does not say how its names are encoded"):
        classes(tmp_path, odd, entry("dog/1.png"))


def test_names_in_utf8_that_nothing_says_so_of_are_read_as_such(tmp_path: Path) -> None:
    assert classes(tmp_path, entry("köttur/1.png"), entry("cat/1.png")) == ("cat", "köttur")


def test_unicode_path_of_info_zip_wins_where_it_is_about_this_name(tmp_path: Path) -> None:
    said = entry("köttur/1.png", "cp850", path="köttur/1.png".encode())
    assert classes(tmp_path, said, entry("cat/1.png")) == ("cat", "köttur")
    ascii_only = entry("k_ttur/2.png", path="köttur/2.png".encode())
    assert classes(tmp_path, ascii_only, entry("cat/1.png")) == ("cat", "köttur")
    stale = entry("cat/1.png", path=b"dog/1.png")
    stale.raw = b"cow/1.png"  # renamed since, as the checksum shows
    assert classes(tmp_path, stale, entry("ant/1.png")) == ("ant", "cow")


@pytest.mark.filterwarnings("ignore:Empty unicode path")  # of some Pythons
@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("path", [b"", b"\xff/1.png"])
def test_unicode_path_that_is_none_is_not_read(tmp_path: Path, path: bytes, cut: int) -> None:
    said = entry("cat/1.png", path=path)
    said.extra = said.extra[: len(said.extra) - cut]
    names: tuple[str, ...] = ()
    with suppress(DataError):  # the zipfile of some Pythons refuses it itself
        names = classes(tmp_path, said, entry("dog/1.png"))
    assert names in ((), ("cat", "dog"))


@pytest.mark.parametrize("path", [b"../evil.png", b"/etc/evil.png", b"a\0b.png"])
def test_unicode_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: bytes) -> None:
    with pytest.raises(DataError, match="is not unpacked"):
        classes(tmp_path, entry("cat/1.png", path=path), entry("dog/1.png"))
    assert cache_entries() == []


@pytest.mark.parametrize(
    ("name", "encoding", "shown"),
    [
        ("köttur", "cp850", "'köttur/1.png' (cp437), 'k杯tur/1.png' (cp932)"),
        ("犬と猫", "cp932", "'犬と猫/1.png' (cp932)"),
        ("狗", "gbk", "'狗/1.png' (gbk)"),
        ("кошка", "cp866", "'кошка/1.png' (cp866)"),
        ("größe", "cp1252", "'größe/1.png' (cp1252)"),
    ],
)
def test_name_of_an_unknown_code_page_is_refused_and_shown_as_some_would_read_it(
    tmp_path: Path, name: str, encoding: str, shown: str
) -> None:
    with pytest.raises(DataError) as told:
        classes(tmp_path, entry("cat/1.png"), entry(f"{name}/1.png", encoding))
    assert "d.zip' is not unpacked: it does not say how its names are encoded: one may be '" in str(
        told.value
    )
    assert shown in str(told.value)
    packed = tmp_path / "d.zip"
    assert str(told.value).endswith(
        "; pack it again with names in UTF-8, or unpack it by python -m zipfile "
        f"--metadata-encoding CODE-PAGE -e {packed} FOLDER and give the folder"
    )
    assert cache_entries() == []
