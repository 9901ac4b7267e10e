"""Zip and tar files: unpacked once, and nothing that is hostile or broken touches the disk."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.patches import calls_of
from thawnet.core.cache import clear_cache
from thawnet.core.errors import DataError, RunError
from thawnet.core.files import cache_entries
from thawnet.data.sources import archives
from thawnet.data.sources.open import open_source

Photos = Callable[..., Path]
KINDS = {"zip": "zip", "tar": "tar", "tar.gz": "gztar", "tar.bz2": "bztar", "tar.xz": "xztar"}


def pack(folder: Path, kind: str, top: bool = True) -> Path:
    """Pack a folder beside itself, under its own name at the top or without."""
    import shutil

    base = folder.parent / f"{folder.name}.v2"
    inside: dict[str, Any] = {"base_dir": folder.name} if top else {}
    root = folder.parent if top else folder
    return Path(shutil.make_archive(str(base), KINDS[kind], root, **inside))


def tar_of(path: Path, *members: tarfile.TarInfo | str) -> Path:
    with tarfile.open(path, "w") as file:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            file.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def zip_of(path: Path, *members: zipfile.ZipInfo | str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for member in members:
            file.writestr(member, b"content")
    return path


def linked(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def nothing_unpacked() -> bool:
    return cache_entries() == []


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


def test_archive_is_unpacked_once_and_the_cache_knows_it(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(photos({"a": 2, "b": 2}), "tar.gz")
    open_source(str(path))
    ((entry, size),) = cache_entries()
    assert entry.parent.name == "archives"
    assert size == sum(file.stat().st_size for file in entry.rglob("*.png")) > 0
    monkeypatch.setattr(archives, "_check", lambda archive: pytest.fail("read again"))
    moved = path.rename(path.with_name("moved.tgz"))
    assert open_source(str(moved)).name == "moved"
    assert clear_cache(print) == size
    assert not entry.exists()


def test_progress_counts_the_files(photos: Photos) -> None:
    from contextlib import contextmanager

    seen: list[tuple[str, int]] = []

    @contextmanager
    def watch(title: str, count: int) -> Any:
        done: list[int] = []
        yield done.append
        seen.append((title, sum(done) - count))

    open_source(str(pack(photos({"a": 2, "b": 2}), "zip")), None, watch).open_part("train")
    assert seen == [("unpacking photos.v2.zip (0 MB)", 0), ("reading train", 0)]


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


def test_archive_of_one_class_is_told_so(photos: Photos) -> None:
    with pytest.raises(DataError, match=r"v2.zip', unpacked: .*one class only \('cat'\)"):
        open_source(str(pack(photos({"cat": 3}), "zip")))


def test_mac_doubles_are_left_behind(photos: Photos) -> None:
    path = pack(photos({"a": 2, "b": 2}), "zip")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("__MACOSX/photos/a/._000.png", b"x")
    assert len(open_source(str(path)).open_part("train")) == 4


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/etc/evil.jpg", "holds '/etc/evil.jpg', which leaves the folder"),
        ("a/../../evil.jpg", "which leaves the folder; it is not unpacked"),
        ("..\\evil.jpg", "which leaves the folder"),
        ("C:\\evil.jpg", "which leaves the folder"),
        ("a/" * 40 + "b.jpg", "more than 32 folders deep"),
        ("n" * 300, "a name of more than 255 bytes"),
    ],
)
def test_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str, told: str) -> None:
    for path in (zip_of(tmp_path / "x.zip", "a/1.jpg", name), tar_of(tmp_path / "x.tar", name)):
        with pytest.raises(DataError, match=told.replace("\\", r"\\")):
            open_source(str(path))
    assert nothing_unpacked()


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    kinds = {
        tarfile.SYMTYPE: "link",
        tarfile.LNKTYPE: "link",
        tarfile.FIFOTYPE: "device",
        tarfile.CHRTYPE: "device",
    }
    for kind, word in kinds.items():
        path = tar_of(tmp_path / "x.tar", "a/0.jpg", linked("a/1.jpg", kind))
        with pytest.raises(DataError, match=rf"holds 'a/1.jpg', a {word}; it is not unpacked"):
            open_source(str(path))
    info = zipfile.ZipInfo("a/1.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match="a link; it is not unpacked"):
        open_source(str(zip_of(tmp_path / "x.zip", info)))
    assert nothing_unpacked()


def test_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 100_000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/1.jpg", bytes(2_000_000))
    with pytest.raises(DataError, match=r"would unpack from .* to more than .* or 100 times"):
        open_source(str(path))
    path = tmp_path / "bomb.tar.gz"
    info = tarfile.TarInfo("a/1.jpg")
    info.size = 2_000_000
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match="would unpack from"):
        open_source(str(path))
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    with pytest.raises(DataError, match="holds more than 3 files; it is not unpacked"):
        open_source(str(zip_of(tmp_path / "many.zip", *(f"a/{n}.jpg" for n in range(4)))))
    assert nothing_unpacked()


def test_header_that_calls_itself_gigabytes_long_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf() + bytes(10_240))
    with pytest.raises(DataError, match="has a header of 4,294,967,296 bytes"):
        open_source(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_archive_is_told_wherever_it_ends(photos: Photos, kind: str) -> None:
    path = pack(photos({"a": 6, "b": 6}), kind)
    whole = path.read_bytes()
    ends = [0, 1, 10, 512, len(whole) // 3, len(whole) * 3 // 4, len(whole) - 8]
    if kind == "tar":
        ends[-1] = len(whole.rstrip(b"\0")) // 512 * 512  # between two blocks, before the end mark
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"is not a whole zip or tar archive \([\d,]+ bytes; "):
            open_source(str(path))
    assert nothing_unpacked()


def test_damaged_content_is_told_and_nothing_is_left(photos: Photos) -> None:
    path = pack(photos({"a": 3, "b": 3}), "zip")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 40] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DataError, match="is not a whole zip or tar archive"):
        open_source(str(path))
    assert nothing_unpacked()


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_what_is_no_archive_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>404 not found</html>" * 50)
    with pytest.raises(DataError, match="is not a whole zip or tar archive"):
        open_source(str(tmp_path / name))


def test_lying_size_is_told(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", "a/1.jpg", "b/1.jpg")
    raw = path.read_bytes()
    short, long = (7).to_bytes(4, "little") * 2, (7).to_bytes(4, "little") + b"\xff\0\0\0"
    path.write_bytes(raw.replace(short, long))
    with pytest.raises(DataError, match=r"not a whole zip|does not hold the 255 bytes"):
        open_source(str(path))
    assert nothing_unpacked()


def test_encrypted_empty_and_doubled_members_are_told(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", "a/1.jpg")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="is encrypted; unpack it and give the folder"):
        open_source(str(path))
    with pytest.raises(DataError, match="holds no files"):
        open_source(str(tar_of(tmp_path / "empty.tar")))
    for names in (("a/1.jpg", "a/1.jpg"), ("a", "a/1.jpg")):
        with pytest.raises(DataError, match="twice, or as a file and as a folder"):
            open_source(str(tar_of(tmp_path / "x.tar", *names)))
    assert nothing_unpacked()


def test_full_disk_is_told_in_bytes_before_unpacking(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(5000))
    path = pack(photos({"a": 2, "b": 2}), "zip")
    with pytest.raises(RunError, match=r"needs 16,384 bytes in .*archives, where 5,000 are free"):
        open_source(str(path))
    assert nothing_unpacked()


def stopped_at(count: int) -> Any:
    """Return a Watch whose bar is interrupted, as by Ctrl-C, after so many files."""
    from contextlib import contextmanager

    @contextmanager
    def watch(_title: str, _count: int) -> Any:
        seen: list[int] = []

        def advance(done: int) -> None:
            seen.append(done)
            if len(seen) == count:
                raise KeyboardInterrupt

        yield advance

    return watch


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_interrupted_unpacking_goes_on_and_writes_again_what_is_not_whole(
    photos: Photos, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos({"a": 6, "b": 6})
    path = pack(folder, kind)
    with pytest.raises(KeyboardInterrupt):
        open_source(str(path), None, stopped_at(5))
    ((part, _),) = cache_entries()
    noted = sorted(part.rglob("*.png"))
    assert len(noted) == 5
    (noted[0]).unlink()
    noted[1].write_bytes(b"half")
    for file in folder.rglob("*.png"):  # written in part after the note, as a killed process does
        there = part / "photos" / file.relative_to(folder)
        if not there.exists() and there != noted[0]:
            there.parent.mkdir(exist_ok=True)
            there.write_bytes(b"ha")
    written = calls_of(monkeypatch, archives, "_write")
    items = open_source(str(path)).open_part("train")
    assert items.fingerprint == open_source(str(folder)).open_part("train").fingerprint
    assert len(written) == 2 + 7


def test_doubled_member_after_a_stop_is_told_too(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", "a/1.jpg", "a/2.jpg", "a/3.jpg", "a/1.jpg")
    with pytest.raises(KeyboardInterrupt):
        open_source(str(path), None, stopped_at(2))
    with pytest.raises(DataError, match=r"holds 'a/1.jpg' twice"):
        open_source(str(path))
    assert nothing_unpacked()


def test_what_is_unpacked_already_needs_no_room(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    path = pack(photos({"a": 2, "b": 2}), "zip")
    with pytest.raises(KeyboardInterrupt):
        open_source(str(path), None, stopped_at(3))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(5000))
    assert len(open_source(str(path)).open_part("train")) == 4


def test_note_json_in_an_archive_is_a_file_like_any_other(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    for name in ("note-0.json", ".note-0.json"):
        (folder / name).write_text("{}")
    open_source(str(pack(folder, "zip", top=False)))
    ((entry, _),) = cache_entries()
    assert {path.name for path in entry.iterdir()} == {"a", "b", "note-0.json"}
