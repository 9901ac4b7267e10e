"""Files that must survive: written beside, fsynced, renamed; and where caches live."""

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

SYNC_ONE_BY_ONE = 100  # files
TEMPORARY = ".tmp"
MAX_NAME = 255  # bytes of one name, what Linux allows
PART = ".part"
_HELD = (5, 32)  # Windows' errors where a scanner or a viewer holds a file for a moment
_MOVES = 20  # attempts, a tenth of a second apart
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of mounts without fsync
_UNREADABLE = (errno.EACCES, errno.EPERM)  # of folders that may be written to, but not read


@contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError under `path` into a RunError that names the path and the way out.

    torch's writer, C++ that is called back, raises a RuntimeError while it handles one.
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
    """Give Ctrl-C and SIGTERM to `catch`, and let the first of them act when the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread alone
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
    """Write a file so that a reader finds the old content or the new, never a part.

    `write` receives a binary handle. The folder of `path` is made if missing.
    Raises RunError when the disk refuses.
    """
    # A signal handler that raises inside torch's writer, which is C++ that calls back into Python,
    # would come out of it as another error.
    with stops_caught(lambda _number: None), new_file(path) as file:
        write(file)


@contextmanager
def new_file(path: Path, keep_part: Callable[[Path], object] | None = None) -> Iterator[IO[bytes]]:
    """Yield a binary handle on a file that becomes `path` when the block ends without an error.

    keep_part: for a file so long that a part is worth keeping. After an error what was written
    stays as `path` with .part behind its name, and this is called with that path; without it,
    nothing stays. The folder of `path` is made if missing. Raises RunError when the disk refuses.
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
            with suppress(FileNotFoundError):  # it is in its place already
                if keep_part is not None and temporary.stat().st_size:
                    part = path.with_name(f"{path.name}{PART}")
                    _move(temporary, part)
                    keep_part(part)
                else:
                    temporary.unlink()
            raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_atomic` for UTF-8 text."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` for JSON, indented, NaN refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    Its files, also those in folders inside, are on the disk first. What was at `path` is replaced.
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
    """Return a name that nobody has, for what becomes `path`; `sweep` knows it."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}{TEMPORARY}")


def publish(folder: Path, path: Path) -> None:
    """Bring all of a folder to the disk, then rename it to `path`, where nothing is."""
    sync_files([file for file in folder.rglob("*") if file.is_file()])
    _move(folder, path)
    sync_folder(path.parent)


def _move(source: Path, target: Path) -> None:
    """Rename, and where Windows says that another program holds it, try again for a while."""
    for attempt in range(_MOVES):
        try:
            source.replace(target)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _HELD or attempt == _MOVES - 1:
                raise
            time.sleep(0.1)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder that no other process writes to now."""
    for leftover in folder.glob(f".*{TEMPORARY}"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def sync_files(files: Sequence[Path]) -> None:
    """Bring files of one disk to it; many, all at once."""
    if len(files) > SYNC_ONE_BY_ONE and _sync_mount(files[0]):
        return
    for file in files:
        with file.open("r+b") as opened:  # Windows syncs no handle that only reads
            sync_file(opened)


def sync_file(file: IO[bytes]) -> None:
    """Bring what was written to an open file to its disk, if its mount offers that."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync_mount(file: Path) -> bool:
    """Bring all of the mount that a file lies on to its disk; return False where that cannot be.

    100,000 single fsyncs take minutes, and os.sync waits for every other mount of the machine too.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    syncfs = getattr(ctypes.CDLL(None), "syncfs", None)  # syncfs(2)
    with file.open("rb") as opened:
        return syncfs is not None and syncfs(opened.fileno()) == 0


def sync_folder(path: Path) -> None:
    """Make a rename in `path` durable, where the system and the mount offer that.

    Windows has no handle on a folder and needs none.
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
    """Return 16 hexadecimal digits that name a JSON-able value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Return $THAWNET_CACHE, or the user's cache folder for thawnet.

    Raises RunError where there is neither, as for a container's user without a home.
    """
    chosen = os.environ.get("THAWNET_CACHE")
    if chosen:
        return Path(chosen)
    # A variable that is empty or relative is to be ignored (XDG Base Directory Specification).
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
    """Let temporary files lie in the cache where the system's folders for them are read-only.

    torch asks for such a folder as it is imported. Where the cache cannot be written either,
    nothing is changed.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        with suppress(RunError, OSError):
            folder = cache_folder() / "temporary"
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = str(folder.absolute())  # which processes that are started ask
            tempfile.tempdir = None  # asks again


def cache_entries() -> list[tuple[Path, int]]:
    """Return every store, unpacked archive, feature file set and download, with its bytes.

    Hidden ones are unfinished.
    """
    return [
        (path, _size(path))
        for kind in ("stores", "archives", "features", "downloads")
        for path in sorted((cache_folder() / kind).glob("*"))
        if path.is_dir()  # and no lock
    ]


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # of an entry that is growing, or going
            status = path.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
