"""Durable files: written to a temporary sibling, fsynced, renamed; and where caches live."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from .errors import DiskFullError, RunError, chain

SYNC_ONE_BY_ONE = 100  # files; with more, their whole mount is synced
TEMPORARY = ".tmp"
MAX_NAME = 255  # bytes of a file name on Linux
PART = ".part"
_HELD = (5, 32)  # Windows errors while a scanner or a viewer holds a file for a moment
_MOVES = 20  # attempts, a tenth of a second apart
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # mounts without fsync
_UNREADABLE = (errno.EACCES, errno.EPERM)  # folders that are writable but not readable


@contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names `path` and what to do.

    An OSError inside torch's C++ file writer surfaces as a RuntimeError; that is handled too.
    """
    try:
        yield
    except (OSError, RuntimeError) as caught:
        error = next((link for link in chain(caught) if isinstance(link, OSError)), None)
        if error is None:
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"{path}: the disk is full; free some space and start again"
            ) from error
        if error.errno == errno.ENOENT:
            hint = "the folder is gone; put it back, or choose another with --out or THAWNET_CACHE"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "it cannot be written; choose another folder with --out or THAWNET_CACHE"
        elif error.errno in NO_LOCKS:
            hint = (
                f"{error.strerror}, as on some network drives; choose a folder on a disk of this "
                "machine with --out or THAWNET_CACHE"
            )
        else:
            hint = error.strerror or str(error)
        raise RunError(f"{path}: {hint}") from error


@contextmanager
def stops_caught(catch: Callable[[int], object]) -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM to `catch`, and raise the first one again when the block ends."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers only in the main thread
        return
    caught: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        catch(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if caught:
            signal.raise_signal(caught[0])


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically: readers see the old content or the new, never a part.

    write: receives a binary handle. The folder of `path` is created if it is missing.
    Raises RunError on a disk error.
    """
    # What a signal handler raises inside torch's C++ writer would surface as another error.
    with stops_caught(lambda _number: None), new_file(path) as file:
        write(file)


@contextmanager
def new_file(path: Path, keep_part: Callable[[Path], object] | None = None) -> Iterator[IO[bytes]]:
    """Yield a binary handle on a file that becomes `path` when the block ends without an error.

    keep_part: for large files. After an error, what was written is kept as `path` with .part
    appended, and `keep_part` is called with that path. Without it, nothing is kept.
    The folder of `path` is created if it is missing. Raises RunError on a disk error.
    """
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        try:
            with temporary.open("xb") as file:
                yield file
                sync_file(file)
            _move(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):  # already renamed
                if keep_part is not None and temporary.stat().st_size:
                    part = path.with_name(f"{path.name}{PART}")
                    _move(temporary, part)
                    keep_part(part)
                else:
                    temporary.unlink()
            raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `write_atomic`."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with `write_atomic`; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    All its files are synced to disk first. An existing folder at `path` is replaced.
    """
    with clear_disk_errors(path):
        temporary = _beside(path)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if path.is_dir():
                shutil.rmtree(path)
            publish(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Return a unique temporary name beside `path`, which `sweep` recognises."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}{TEMPORARY}")


def publish(folder: Path, path: Path) -> None:
    """Sync a folder to disk, then rename it to `path`, which must not exist."""
    sync_files([file for file in folder.rglob("*") if file.is_file()])
    _move(folder, path)
    sync_folder(path.parent)


def _move(source: Path, target: Path) -> None:
    """Rename; on Windows, retry for a while if another program holds the file."""
    for attempt in range(_MOVES):
        try:
            source.replace(target)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _HELD or attempt == _MOVES - 1:
                raise
            time.sleep(0.1)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder; no other process may be writing to it."""
    for leftover in folder.glob(f".*{TEMPORARY}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def sync_files(files: Sequence[Path]) -> None:
    """Sync files of one mount to disk, by syncing the whole mount if they are many."""
    if len(files) > SYNC_ONE_BY_ONE and _sync_mount(files[0]):
        return
    for file in files:
        with file.open("r+b") as opened:  # Windows cannot sync a read-only handle
            sync_file(opened)


def sync_file(file: IO[bytes]) -> None:
    """Sync an open file to disk, if its mount supports that."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync_mount(file: Path) -> bool:
    """Sync the whole mount of a file to disk; return False if that is not possible.

    100,000 single fsyncs take minutes, and os.sync waits for every other mount of the machine too.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    syncfs = getattr(ctypes.CDLL(None), "syncfs", None)  # syncfs(2)
    with file.open("rb") as opened:
        return syncfs is not None and syncfs(opened.fileno()) == 0


def sync_folder(path: Path) -> None:
    """Make a rename in `path` durable, if the system and the mount support that.

    Windows has no folder handles and needs none.
    """
    if sys.platform == "win32":
        return
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (*_NO_SYNC, *_UNREADABLE):
            raise


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Return a fingerprint of a JSON-able value: 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Return $THAWNET_CACHE, or the user's cache folder for thawnet.

    Raises RunError if there is neither, as for a container user without a home folder.
    """
    chosen = os.environ.get("THAWNET_CACHE")
    if chosen:
        return Path(chosen)
    # An empty or relative variable must be ignored (XDG Base Directory Specification).
    variable = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")
    base = Path(os.environ.get(variable, ""))
    if not base.is_absolute():
        own = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
        try:
            base = Path.home() / own
        except RuntimeError as error:
            raise RunError(
                "this user has no home folder for caches; name one with THAWNET_CACHE"
            ) from error
    return base / "thawnet"


def find_temporary_folder() -> None:
    """Put temporary files into the cache if the system's folders for them are read-only.

    torch needs such a folder when it is imported. If the cache is not writable either, nothing
    changes.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        with suppress(RunError, OSError):
            folder = cache_folder() / "temporary"
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = str(folder.absolute())  # for child processes
            tempfile.tempdir = None  # looked up again


def cache_entries() -> list[tuple[Path, int]]:
    """Return every store, unpacked archive, set of features and download with its size in bytes.

    Hidden entries are unfinished.
    """
    return [
        (path, _size(path))
        for kind in ("stores", "archives", "features", "downloads")
        for path in sorted((cache_folder() / kind).glob("*"))
        if path.is_dir()  # not a lock
    ]


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # an entry is being built or removed
            status = path.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
