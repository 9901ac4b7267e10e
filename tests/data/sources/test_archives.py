"""Zip and tar files: unpacked once, and nothing that is hostile or broken touches the disk."""

from __future__ import annotations

import io
import lzma
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.patches import calls_of
from thawnet.core.cache import clear_cache
from thawnet.core.errors import DataError, RunError
from thawnet.core.files import cache_entries
from thawnet.data.items import Watch
from thawnet.data.sources import archives, entries
from thawnet.data.sources.open import open_source

Photos = Callable[..., Path]
KINDS = {"zip": "zip", "tar": "tar", "tar.gz": "gztar", "tar.bz2": "bztar", "tar.xz": "xztar"}


def pack(folder: Path, kind: str, top: bool = True) -> Path:
    """Pack a folder beside itself, under its own name at the top or without."""
    base = folder.parent / f"{folder.name}.v2"
    inside: dict[str, Any] = {"base_dir": folder.name} if top else {}
    root = folder.parent if top else folder
    return Path(shutil.make_archive(str(base), KINDS[kind], root, **inside))


def tar_of(path: Path, *members: tarfile.TarInfo | str, mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            file.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def zip_of(path: Path, *members: zipfile.ZipInfo | str, content: bytes = b"content") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in members:
            file.writestr(member, content)
    return path


def refused(path: Path, message: str) -> None:
    """Check that an archive is refused in these words and nothing of it is left."""
    with pytest.raises(DataError, match=message):
        open_source(str(path))
    assert cache_entries() == []


# --- what is in it ------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_archive_is_read_like_the_folder_in_it(photos: Photos, kind: str, top: bool) -> None:
    folder = photos({"black cat": 2, "köttur": 3})
    (folder / ".hidden").write_text("x")
    source, plain = open_source(str(pack(folder, kind, top))), open_source(str(folder))
    assert source.name == "photos.v2"
    assert source.classes == plain.classes
    items = source.open_part("train")
    assert items.fingerprint == plain.open_part("train").fingerprint


def test_xz_of_several_streams_at_its_strongest_is_one_archive(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    path = pack(folder, "tar")
    halves = path.read_bytes()[:5000], path.read_bytes()[5000:]
    packed = path.with_suffix(".txz")
    packed.write_bytes(bytes(8).join(lzma.compress(half, preset=9) for half in halves) + bytes(4))
    items = open_source(str(packed)).open_part("train")
    assert items.fingerprint == open_source(str(folder)).open_part("train").fingerprint


def test_archive_is_unpacked_once_and_the_cache_knows_it(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[tuple[str, int, int]] = []

    @contextmanager
    def watch(title: str, count: int) -> Iterator[Callable[[int], None]]:
        done: list[int] = []
        yield done.append
        bars.append((title, count, sum(done)))

    path = pack(photos({"a": 2, "b": 2}), "tar.gz")
    open_source(str(path), None, watch)
    assert bars == [("unpacking photos.v2.tar.gz (0 MB)", 4, 4)]
    ((entry, size),) = cache_entries()
    assert entry.parent.name == "archives"
    assert size == sum(file.stat().st_size for file in entry.rglob("*.png")) > 0
    monkeypatch.setattr(archives, "_check", lambda path, entries: pytest.fail("read again"))
    moved = path.rename(path.with_name("moved.tgz"))
    assert open_source(str(moved)).name == "moved"
    assert clear_cache(print) == size
    assert not entry.exists()


def test_one_table_at_the_top_is_honoured_and_stays_inside(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    table = folder / "labels.csv"
    table.write_text("path,label\na/000.png,x\nb/000.png,y\n")
    source = open_source(str(pack(folder, "zip")))
    assert (source.name, source.classes) == ("photos.v2", ("x", "y"))
    for outside in ("../secret.png", "/etc/secret.png", "a/../../secret.png"):
        table.write_text(f"path,label\na/000.png,x\n{outside},y\n")
        with pytest.raises(DataError, match=r"v2.zip', unpacked: .*line 3.*outside the arch"):
            open_source(str(pack(folder, "zip")))


def test_mac_doubles_and_hidden_files_are_left_behind(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    for name in ("note-0.json", ".note-0.json"):  # the hidden one is called as the cache's own
        (folder / name).write_text("{}")
    path = pack(folder, "zip", top=False)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("__MACOSX/a/._000.png", b"x")
    assert len(open_source(str(path)).open_part("train")) == 4
    ((entry, _),) = cache_entries()
    assert {path.name for path in entry.iterdir()} == {"a", "b", "note-0.json"}


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/evil.jpg", "holds '/etc/evil.jpg', which leaves the folder"),
        ("a/../../evil.jpg", "which leaves the folder"),
        ("..\\evil.jpg", "which leaves the folder"),
        ("C:\\evil.jpg", "which leaves the folder"),
        ("a/" * 40 + "b.jpg", "more than 32 folders deep"),
        ("n" * 300, "a name of more than 255 bytes"),
    ],
)
def test_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str, message: str) -> None:
    refused(zip_of(tmp_path / "x.zip", "a/1.jpg", name), message)
    refused(tar_of(tmp_path / "x.tar", name), message)


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    for kind, word in {
        tarfile.SYMTYPE: "link",
        tarfile.LNKTYPE: "link",
        tarfile.FIFOTYPE: "device",
        tarfile.CHRTYPE: "device",
    }.items():
        member = tarfile.TarInfo("a/1.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        refused(tar_of(tmp_path / "x.tar", "a/0.jpg", member), f"'a/1.jpg', a {word}, where")
    info = zipfile.ZipInfo("a/1.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(zip_of(tmp_path / "x.zip", info), "a link, where files and folders are expected")


def test_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 100_000)
    path = zip_of(tmp_path / "bomb.zip", "a/1.jpg", content=bytes(2_000_000))
    refused(path, r"would unpack from .* to more than .* or 100 times")
    info = tarfile.TarInfo("a/1.jpg")
    info.size = 2_000_000
    refused(tar_of(tmp_path / "bomb.tar.gz", info, mode="w:gz"), "would unpack from")
    monkeypatch.setattr(entries, "MAX_FILES", 3)
    many = [f"a/{number}.jpg" for number in range(4)]
    refused(zip_of(tmp_path / "many.zip", *many), "is not unpacked: it holds more than 3 files")
    refused(tar_of(tmp_path / "many.tar", *many), "is not unpacked: it holds more than 3 files")


def test_header_that_calls_itself_gigabytes_long_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf() + bytes(2**25))  # newer Pythons read until there is no more
    refused(path, "has a header of over 16,777,216 bytes")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_truncated_or_no_archive_is_told(photos: Photos, kind: str) -> None:
    path = pack(photos({"a": 6, "b": 6}), kind)
    whole = path.read_bytes()
    ends = [0, 1, 10, 512, len(whole) // 3, len(whole) * 3 // 4, len(whole) - 8]
    if kind == "tar":
        ends[-1] = len(whole.rstrip(b"\0")) // 512 * 512  # between two blocks, before the end mark
    for content in (*(whole[:end] for end in ends), b"<html>404 not found</html>" * 50):
        path.write_bytes(content)
        refused(path, r"is not a whole zip or tar archive \([\d,]+ bytes; ")


def test_damaged_content_is_told_and_nothing_is_left(photos: Photos) -> None:
    path = pack(photos({"a": 3, "b": 3}), "zip")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 40] ^= 0xFF
    path.write_bytes(raw)
    refused(path, "is not a whole zip or tar archive")


def test_lying_size_encryption_and_doubled_members_are_told(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", "a/1.jpg", "b/1.jpg", content=b"")
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 24] = 255  # bytes that it declares
    path.write_bytes(raw)
    refused(path, r"not a whole zip|does not hold the 255 bytes")
    raw[entry + 8] |= 1
    path.write_bytes(raw)
    refused(path, "is encrypted; unpack it and give the folder")
    refused(tar_of(tmp_path / "empty.tar"), "holds no files")
    for names in (("a/1.jpg", "a/1.jpg"), ("a", "a/1.jpg")):
        refused(tar_of(tmp_path / "x.tar", *names), "twice, or as a file and as a folder")


# --- stopped and full ---------------------------------------------------------------------------


def stopped_at(count: int) -> Watch:
    """Return a Watch whose bar is interrupted, as by Ctrl-C, after so many files."""

    @contextmanager
    def watch(_title: str, _count: int) -> Iterator[Callable[[int], None]]:
        seen: list[int] = []

        def advance(done: int) -> None:
            seen.append(done)
            if len(seen) == count:
                raise KeyboardInterrupt

        yield advance

    return watch


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], Path]:
    """Return a function that stops the unpacking after so many files and returns the part."""
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", "0")

    def stop(path: Path, count: int) -> Path:
        with pytest.raises(KeyboardInterrupt):
            open_source(str(path), None, stopped_at(count))
        ((part, _),) = cache_entries()
        return part

    return stop


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_interrupted_unpacking_goes_on_and_writes_again_what_is_not_whole(
    photos: Photos,
    kind: str,
    stopped: Callable[[Path, int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = photos({"a": 6, "b": 6})
    path = pack(folder, kind)
    written = calls_of(monkeypatch, archives, "_write")
    part = stopped(path, 5)
    assert len(list(part.rglob("*.png"))) == len(written) == 5
    first, second = (file for _, file in written[:2])
    first.unlink()
    second.write_bytes(b"half")
    written.clear()
    for file in folder.rglob("*.png"):  # written in part after the note, as a killed process does
        there = part / "photos" / file.relative_to(folder)
        if not there.exists() and there != first:
            there.parent.mkdir(exist_ok=True)
            there.write_bytes(b"ha")
    items = open_source(str(path)).open_part("train")
    assert items.fingerprint == open_source(str(folder)).open_part("train").fingerprint
    assert len(written) == 2 + 8  # the fifth was not noted yet


def test_doubled_member_after_a_stop_is_told_too(
    tmp_path: Path, stopped: Callable[[Path, int], Path]
) -> None:
    path = tar_of(tmp_path / "x.tar", "a/1.jpg", "a/2.jpg", "a/3.jpg", "a/1.jpg")
    stopped(path, 2)
    refused(path, r"holds 'a/1.jpg' twice")


def test_full_disk_is_told_before_unpacking_but_what_is_there_already_needs_no_room(
    photos: Photos, stopped: Callable[[Path, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(photos({"a": 2, "b": 2}), "zip")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9000))
        with pytest.raises(RunError, match=r"needs 16,384 bytes in .*archives, where 9,000 are fr"):
            open_source(str(path))
    assert cache_entries() == []
    stopped(path, 3)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9000))
    assert len(open_source(str(path)).open_part("train")) == 4
