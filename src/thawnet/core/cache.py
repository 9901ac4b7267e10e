"""Cache entries that take minutes: built once, by one process, resumed after stops and power cuts.

An entry is built in a hidden folder beside its final path, under a lock that the system releases
when its holder dies. Every few seconds the work so far is synced and a note says what it contains;
the next attempt continues from the note. The finished entry appears by a rename. Its .note* files
exist only while it is built.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import DataError, RunError
from .files import PART, cache_entries, clear_disk_errors, publish, sweep, sync_file, write_json

KEEP = "THAWNET_KEEP_SECONDS"
KEEP_SECONDS = 20.0  # of work that a stop may lose; half a minute on a slow disk
ABANDONED = 7 * 86400.0  # seconds without a change after which an unfinished entry is removed
LOCK = ".lock"
NOTE = ".note"  # hidden, unlike any file of an unpacked archive


class Pace:
    """Timer for saving unfinished work: every THAWNET_KEEP_SECONDS, by default 20."""

    def __init__(self) -> None:
        chosen = os.environ.get(KEEP, str(KEEP_SECONDS))
        try:
            self._every = float(chosen)
        except ValueError:
            self._every = -1.0
        if not 0 <= self._every < float("inf"):
            raise RunError(f"{KEEP}='{chosen}': must be a number of seconds, 0 or more")
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether it is time to save the work."""
        return time.monotonic() - self._last >= self._every

    def restart(self) -> None:
        """Restart the timer, once the work is saved."""
        self._last = time.monotonic()


class Building:
    """An unfinished entry: the folder it is built in, and notes of its progress.

    Several members of a team may write into one folder; each has its own note.
    """

    def __init__(self, folder: Path, member: int = 0) -> None:
        self.folder = folder
        self.member = member
        self.pace = Pace()
        self._note = f"{NOTE}-{member}.json"

    def open(self, name: str) -> IO[bytes]:
        """Open a file of the folder for reading and writing at its start; create it if missing."""
        return os.fdopen(os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644), "r+b")

    def keep(self, note: Any, *files: IO[bytes]) -> None:
        """Sync files to disk, then this member's note of what they contain, a JSON value.

        Raises FileNotFoundError if the folder or one of the files was removed.
        """
        for file in files:
            sync_file(file)
        # Otherwise the note would recreate the folder, without the files that it describes.
        if not self.folder.is_dir() or any(not os.fstat(file.fileno()).st_nlink for file in files):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))
        write_json(self.folder / self._note, note)
        self.pace.restart()

    def notes(self) -> list[Any]:
        """Return the latest note of each member, written by this process or an earlier one."""
        return [json.loads(path.read_text()) for path in _notes(self.folder)]

    def replace_notes(self, note: Any) -> None:
        """Replace the notes of all members by a single note of this member."""
        others = [path for path in _notes(self.folder) if path.name != self._note]
        self.keep(note)
        for path in others:
            path.unlink()


def _notes(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{NOTE}-*.json"))


@contextmanager
def building(path: Path, tell: Callable[[str], None]) -> Iterator[Building | None]:
    """Yield the unfinished entry that becomes `path` when the block ends without an error.

    Yields None if the entry is complete already, for example because another process built it while
    this one waited. After an error, work that has a note is kept for the next attempt, but not
    after a DataError. tell: receives one line if another process must be waited for.
    Raises RunError on a disk error.
    """
    folder = _part(path)
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, "building", tell):
            if path.is_dir():
                yield None
                return
            _sweep(path.parent)
            if not _notes(folder):
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            sweep(folder)
            try:
                yield Building(folder)
            except BaseException as error:
                if isinstance(error, DataError) or not _notes(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            publish(folder, path)
            for note in path.glob(f"{NOTE}*"):  # not before: a stop would lose all work
                note.unlink()


@contextmanager
def locked(path: Path, doing: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the exclusive lock of an entry; the system releases it when its holder dies.

    doing: what the lock is for, such as 'building'. tell: receives one line if another process must
    be waited for.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(_lock_file(path))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        tell(f"another process is {doing} {path}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        if not _part(path).is_dir():
            _unlink(_lock_file(path))  # waiting processes try again, on a new one
        lock.release()


def _part(path: Path) -> Path:
    return path.parent / f".{path.name}{PART}"


def _lock_file(path: Path) -> Path:
    return path.parent / f".{path.name}{LOCK}"


def _unlink(lock: Path) -> None:
    """Remove a lock file that this process holds, if the system allows it; Windows does not."""
    with suppress(OSError):
        lock.unlink()


def _sweep(parent: Path) -> None:
    """Remove unfinished entries that have not changed for a week and are not being built."""
    for part in parent.glob(f".*{PART}"):
        try:
            newest = max(file.stat().st_mtime for file in [part, *part.iterdir()])
        except OSError:
            continue  # it is being finished
        if time.time() - newest > ABANDONED:
            remove(part)


def remove(entry: Path) -> bool:
    """Remove an entry, finished or not; if it is being built, leave it and return False.

    What a stop leaves of it is an unfinished entry. Raises RunError on a disk error.
    """
    from filelock import FileLock, Timeout

    path = entry.parent / entry.name.removeprefix(".").removesuffix(PART)
    part, lock = _part(path), _lock_file(path)
    with clear_disk_errors(entry):
        try:
            with FileLock(lock, timeout=0), suppress(FileNotFoundError):
                if entry != part:
                    if part.is_dir():
                        shutil.rmtree(part)
                    entry.rename(part)
                shutil.rmtree(part)
                _unlink(lock)
        except Timeout:
            return False
    return True


def clear_cache(tell: Callable[[str], None]) -> int:
    """Remove every cache entry, finished or not, and return the bytes freed.

    tell: receives one line for each entry that stays because another process is building it.
    Raises RunError on a disk error.
    """
    removed = 0
    for entry, size in cache_entries():
        if remove(entry):
            removed += size
        else:
            tell(f"{entry} stays: another process is building it")
    return removed
