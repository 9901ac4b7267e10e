"""Writes that must survive."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from thawnet.core import files
from thawnet.core.errors import DiskFullError, RunError
from thawnet.core.files import new_file, new_folder, sweep, write_atomic, write_json


def test_failed_write_keeps_the_old_file_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"good": 1})

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, fail)
    assert path.read_text() == '{\n  "good": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".a")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_in_the_middle_of_a_write_waits_for_its_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, stop)
    path = tmp_path / "a"

    def write(file: IO[bytes]) -> None:
        file.write(b"first ")
        signal.raise_signal(number)
        file.write(b"second")

    try:
        with pytest.raises(KeyboardInterrupt):
            write_atomic(path, write)
        assert path.read_bytes() == b"first second"
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("files_too", [False, True])
def test_mount_without_syncs_is_written_to(
    files_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = os.fsync

    def sync(handle: int) -> None:
        if files_too or stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        synced(handle)

    monkeypatch.setattr(os, "fsync", sync)
    write_json(Path("a.json"), 1)
    with new_folder(Path("entry")) as folder:
        (folder / "part").write_text("x")
    assert {path.name for path in Path.cwd().iterdir()} == {"a.json", "entry"}


@pytest.mark.parametrize(("mask", "expected"), [(0o022, [0o644, 0o755]), (0o077, [0o600, 0o700])])
def test_files_and_folders_follow_the_umask(mask: int, expected: list[int]) -> None:
    before = os.umask(mask)
    try:
        write_json(Path("a.json"), 1)
        with new_folder(Path("entry")):
            pass
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(Path(name).stat().st_mode) for name in ("a.json", "entry")]
    assert modes == expected


@pytest.mark.parametrize("written", [b"", b"one line\ntwo"])
def test_part_of_a_long_file_is_kept_and_told_if_there_is_any(written: bytes) -> None:
    path = Path("all.csv")
    told: list[Path] = []

    def fail() -> None:
        with new_file(path, told.append) as file:
            file.write(written)
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match=r"^all.csv: the disk is full; [^-]*$"):
        fail()
    parts = [Path("all.csv.part")] if written else []
    assert told == parts == list(Path().iterdir())
    assert [part.read_bytes() for part in parts] == [written] * len(parts)


def test_folder_appears_whole_or_not_at_all_and_replaces_the_one_before() -> None:
    def write(content: str, error: Exception | None = None) -> None:
        with new_folder(Path("entry")) as folder:
            (folder / f"of-{content}").write_text(content)
            if error:
                raise error

    with pytest.raises(ValueError, match="stop"):
        write("half", ValueError("stop"))
    assert list(Path().iterdir()) == []
    write("old")
    write("new")
    assert [str(path) for path in Path().rglob("*")] == ["entry", "entry/of-new"]


def test_files_inside_folders_are_on_the_disk_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[object] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(files, "_sync_mount", lambda file: synced.append(file.parent.name) or True)
    with new_folder(tmp_path / "few") as folder:
        (folder / "in" / "side").mkdir(parents=True)
        (folder / "in" / "side" / "part").write_text("x")
    assert len(synced) == 2  # the file, and the folder that holds the new name
    with new_folder(tmp_path / "many") as folder:
        for number in range(files.SYNC_ONE_BY_ONE + 1):
            (folder / str(number)).write_text("x")
    (mount, _) = synced[2:]
    assert str(mount).startswith(".many.")


def test_many_files_are_synced_one_by_one_where_a_mount_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files._sync_mount(Path(__file__))
    monkeypatch.setattr(files, "_sync_mount", lambda _file: False)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(os, "sync", pytest.fail)  # which would wait for every mount
    with new_folder(tmp_path / "many") as folder:
        for number in range(files.SYNC_ONE_BY_ONE + 1):
            (folder / str(number)).write_text("x")
    assert len(synced) == files.SYNC_ONE_BY_ONE + 2


def test_files_are_synced_through_handles_that_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def as_windows_does(handle: int, sync: Callable[[int], None] = os.fsync) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sync(handle)

    monkeypatch.setattr(os, "fsync", as_windows_does)
    monkeypatch.setattr(files, "sync_folder", lambda _path: None)  # Windows has none
    with new_folder(tmp_path / "entry") as folder:
        (folder / "part").write_text("x")
    write_atomic(tmp_path / "a", lambda file: file.write(b"content"))
    assert (tmp_path / "entry" / "part").read_text() == "x"


@pytest.mark.parametrize(("refusals", "ends"), [(3, True), (1000, False)])
def test_rename_that_windows_refuses_for_a_moment_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, ends: bool
) -> None:
    left = [refusals]

    def replace(source: Path, target: Path, replace: Callable[..., Path] = Path.replace) -> Path:
        if left[0]:
            left[0] -= 1
            error = PermissionError(errno.EACCES, "The process cannot access the file")
            error.winerror = 32  # type: ignore[attr-defined] # as a scanner causes it there
            raise error
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(files.time, "sleep", lambda _seconds: None)
    if ends:
        write_atomic(tmp_path / "a", lambda file: file.write(b"new"))
        with new_folder(tmp_path / "entry"):
            pass
        assert (tmp_path / "a").read_bytes() == b"new"
    else:
        with pytest.raises(RunError, match="it cannot be written"):
            write_atomic(tmp_path / "a", lambda file: file.write(b"new"))
        assert [path.name for path in tmp_path.iterdir()] == ["work"]  # where the test runs


def test_mount_without_locks_is_a_sentence_with_the_variable_to_set(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match=r"No locks available, as on some network drives; .*_CACHE"),
        files.clear_disk_errors(tmp_path),
    ):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / ".bundle.x1.tmp" / "in").mkdir(parents=True)
    (folder / ".log.json.x2.tmp").touch()
    kept = {"log.json", ".hidden", "notes.tmp"}
    for name in kept:
        (folder / name).touch()
    sweep(folder)
    assert {path.name for path in folder.iterdir()} == kept


def test_content_is_on_the_disk_before_its_name_and_the_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []

    def note(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        synced.append((kind, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", note)
    write_atomic(tmp_path / "a", lambda file: file.write(b"content"))
    assert synced == [("file", False), ("folder", True)]


def test_json_that_others_can_not_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "folder" / "a.json", {"accuracy": float("nan")})
    assert not (tmp_path / "folder").exists()


def without_a_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"THAWNET_CACHE": "/mine", "XDG_CACHE_HOME": "/x"}, "/mine"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/thawnet"),
        ({"XDG_CACHE_HOME": ""}, None),
        ({"XDG_CACHE_HOME": "relative"}, None),
        ({}, None),
    ],
)
def test_cache_of_a_user_without_a_home_is_the_one_named_or_a_sentence(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str | None
) -> None:
    monkeypatch.setattr(files.sys, "platform", "linux")
    for name in ("THAWNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if folder is None:
        assert files.cache_folder() == Path.home() / ".cache" / "thawnet"
    monkeypatch.setattr(Path, "home", without_a_home)
    if folder is None:
        with pytest.raises(RunError, match="no home folder for caches; name one with THAWNET_CACH"):
            files.cache_folder()
    else:
        assert files.cache_folder() == Path(folder)
