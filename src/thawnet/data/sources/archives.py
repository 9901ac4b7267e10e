"""Zip and tar archives of a data folder: checked, then unpacked once into the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ...core.cache import Building, building
from ...core.errors import DataError, RunError
from ...core.files import MAX_NAME, cache_folder, sync_files
from ...net.published import Tell
from ..items import Watch
from .entries import Entries, Entry, read_entries, refusal

MAX_DEPTH = 32
# Photos hardly compress; an archive that grows a hundredfold is a decompression bomb.
MAX_GROWTH = 100
ALWAYS_ALLOWED = 2**30  # bytes
DISK_BLOCK = 4096
EDGE = 2**20  # bytes at either end that identify an archive
VERSION = 2  # of how names are read; folders unpacked by another version are not reused

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")


def is_archive(path: Path) -> bool:
    """Return whether a file is named like an archive."""
    return path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """Return an archive's name without `.tar.gz` and the like."""
    suffix = max((end for end in SUFFIXES if path.name.lower().endswith(end)), key=len)
    return path.name[: -len(suffix)]


def unpack(path: Path, watch: Watch, tell: Tell) -> Path:
    """Return the folder of an archive's files, unpacking them into the cache if needed.

    Everything is checked before the first byte is written. An interrupted attempt is resumed.
    Raises DataError, naming the archive and the entry, if it is damaged or too large, or if an
    entry leaves the folder or is not a plain file; RunError if the cache cannot be written.
    """
    try:
        target = cache_folder() / "archives" / _key(path)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error
    if not target.is_dir():
        with building(target, tell) as work:
            if work is not None:
                with path.open("rb") as file:
                    _grow(work, path, read_entries(path, file), watch)
    return target


def _grow(work: Building, path: Path, entries: Entries, watch: Watch) -> None:
    count, needed = _check(path, entries())
    # Number of files written completely, in archive order, and their bytes on disk.
    noted, size = next(iter(work.notes()), (0, 0))
    if noted:  # later files may be partly written, and would look like duplicate entries
        for number, entry in enumerate(_visible_files(entries), 1):
            file = work.folder.joinpath(*entry.words)
            with suppress(OSError):
                if number > noted or file.stat().st_size != entry.size:
                    file.unlink()
    _require_disk(path, work.folder, needed - size)
    fresh: list[Path] = []
    with watch(f"unpacking {path.name} ({needed / 1e6:,.0f} MB)", count) as advance:
        for number, entry in enumerate(_visible_files(entries), 1):
            file = work.folder.joinpath(*entry.words)
            if number > noted or not file.is_file():
                _write(entry, file)
                fresh.append(file)
            advance(1)
            if number > noted:
                size += _on_disk(entry)
                if work.pace.due():
                    sync_files(fresh)
                    work.keep((number, size))
                    fresh.clear()
    there = sum(file.is_file() for file in work.folder.rglob("[!.]*"))
    if there != count:
        raise RunError(
            f"{count - there:,} of the {count:,} files of '{path}' were removed from "
            f"{work.folder} while it was being unpacked; start again"
        )


def _visible_files(entries: Entries) -> Iterator[Entry]:
    return (entry for entry in entries() if entry.visible_file)


def _on_disk(entry: Entry) -> int:
    return -(-entry.size // DISK_BLOCK) * DISK_BLOCK


def _key(path: Path) -> str:
    """Return the cache key of an archive: size, modification time, first and last MiB.

    The ends hold a zip's table of checksums and the checksum of a compressed tar; hashing all of a
    large archive at every start would take as long as reading it. The path is not in the key.
    """
    status = path.stat()
    digest = hashlib.sha256(f"{VERSION} {status.st_size} {status.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(EDGE))
        file.seek(max(0, status.st_size - EDGE))
        digest.update(file.read(EDGE))
    return digest.hexdigest()[:16]


def _check(path: Path, entries: Iterator[Entry]) -> tuple[int, int]:
    """Return how many files will be unpacked and the bytes they will take on disk.

    Raises DataError for the first entry that must not be unpacked.
    """
    packed = path.stat().st_size
    limit = max(ALWAYS_ALLOWED, MAX_GROWTH * packed)
    files = unpacked = needed = 0
    for entry in entries:
        fault = _fault(entry)
        if fault is not None:
            raise refusal(path, f"holds {fault}")
        unpacked += entry.size
        if unpacked > limit:
            raise DataError(
                f"'{path}' would unpack from {packed:,} bytes to more than {limit:,}; at most "
                f"{ALWAYS_ALLOWED:,} bytes or {MAX_GROWTH} times its size are unpacked"
            )
        if entry.visible_file:
            files += 1
            needed += _on_disk(entry)
    if not files:
        raise DataError(f"'{path}' holds no files")
    return files, needed


def _fault(entry: Entry) -> str | None:
    """Return why an entry may not be unpacked, None if it may."""
    name, words = entry.name, entry.words
    if name[:1] in ("/", "\\") or name[1:2] == ":" or ".." in words:
        return f"'{name}', which leaves the folder"
    if "\0" in name or (entry.kind == "file" and not words):
        return f"a file whose name is {name[:60]!r}"
    if entry.kind in ("link", "device"):
        return f"'{name}', a {entry.kind}, where files and folders are expected"
    if len(words) > MAX_DEPTH or any(len(os.fsencode(word)) > MAX_NAME for word in words):
        return (
            f"'{name[:60]}...': more than {MAX_DEPTH} folders deep or a name of more than "
            f"{MAX_NAME} bytes"
        )
    return None


def _require_disk(path: Path, target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise RunError(
            f"unpacking '{path}' needs {needed:,} bytes in {target.parent}, where {free:,} are "
            "free; free some space or choose another folder with THAWNET_CACHE"
        )


def _write(entry: Entry, path: Path) -> None:
    """Write one file, without its permissions, times and owner."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise DataError(
            f"'{entry.archive}' holds '{entry.name}' twice, or as a file and as a folder"
        ) from None
    with file:
        for block in entry.blocks():
            file.write(block)
