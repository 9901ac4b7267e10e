"""Zip and tar files of a folder: checked, then unpacked once into the cache."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, NoReturn

from ...core.cache import Building, building
from ...core.errors import DataError, RunError
from ...core.files import cache_folder, sync_files
from ...net.published import Tell
from ..items import Watch
from .streams import Bounded, Directory, decompressed

MAX_FILES = 2_000_000  # ImageNet has 1.3 million
MAX_DEPTH = 32
MAX_NAME = 255  # bytes of one name, what Linux allows
# Photos hardly shrink; what grows a hundredfold is made to fill the disk.
MAX_GROWTH = 100
ALWAYS_ALLOWED = 2**30  # bytes
DISK_BLOCK = 4096
EDGE = 2**20  # bytes at either end that name an archive, and that are read at once

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
SUFFIXES = (".zip", *TAR_SUFFIXES)

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)


def is_archive(path: Path) -> bool:
    """Whether a file is called like an archive."""
    return path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """Return an archive's name without `.tar.gz` and the like."""
    suffix = max((end for end in SUFFIXES if path.name.lower().endswith(end)), key=len)
    return path.name[: -len(suffix)]


def unpack(path: Path, watch: Watch, tell: Tell) -> Path:
    """Return the folder of an archive's files, unpacked into the cache if they are not there yet.

    Everything is checked before the first byte is written. Goes on from where an earlier attempt
    was stopped. Raises DataError, naming the archive and what it holds, for what is damaged,
    leaves the folder, is no plain file, or is too much; RunError when the cache cannot be written.
    """
    try:
        target = cache_folder() / "archives" / _key(path)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error
    if not target.is_dir():
        with building(target, tell) as work:
            if work is not None:
                with path.open("rb") as file:
                    _grow(work, _open(path, file), watch)
    return target


def _grow(work: Building, archive: _Archive, watch: Watch) -> None:
    count, needed = _check(archive)
    # The files that are written whole, counted as they lie in the archive, and their bytes.
    noted, size = next(iter(work.notes()), (0, 0))
    if noted:
        _remove_after(noted, archive, work.folder)
    _require_disk(archive.path, work.folder, needed - size)
    reached = (noted, size)
    fresh: list[Path] = []

    def keep() -> None:
        sync_files(fresh)
        work.keep(reached)
        fresh.clear()

    title = f"unpacking {archive.path.name} ({needed / 1e6:,.0f} MB)"
    with watch(title, count) as advance:
        try:
            for number, member in enumerate(_wanted(archive), 1):
                path = _place(member, work.folder)
                if number > noted:
                    _write(archive, member, path)
                    fresh.append(path)
                    size += _on_disk(member)
                    reached = (number, size)
                elif not (path.is_file() and path.stat().st_size == member.bytes):
                    path.unlink(missing_ok=True)
                    _write(archive, member, path)
                    fresh.append(path)
                advance(1)
                if work.pace.due():
                    keep()
        except KeyboardInterrupt:
            keep()
            raise
    there = sum(path.is_file() for path in work.folder.rglob("[!.]*"))
    if there != count:
        raise RunError(
            f"{count - there:,} of the {count:,} files of '{archive.path}' were removed from "
            f"{work.folder} while it was being unpacked; start again"
        )


def _wanted(archive: _Archive) -> Iterator[_Member]:
    return (member for member in archive.members() if member.wanted)


def _place(member: _Member, folder: Path) -> Path:
    return folder.joinpath(*member.words)


def _on_disk(member: _Member) -> int:
    return -(-member.bytes // DISK_BLOCK) * DISK_BLOCK


def _remove_after(noted: int, archive: _Archive, folder: Path) -> None:
    """Remove what was written after the note, so that a file in the way is a doubled member."""
    for member in islice(_wanted(archive), noted, None):
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
            _place(member, folder).unlink()


def _key(path: Path) -> str:
    """Name an archive by size, modification time and its first and last MiB.

    The ends hold a zip's table of checksums and the checksum of a compressed tar; hashing all of a
    large archive at every start would take as long as reading it. Where it lies does not matter.
    """
    status = path.stat()
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(EDGE))
        file.seek(max(0, status.st_size - EDGE))
        digest.update(file.read(EDGE))
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; `handle` is what the archive's own library calls it."""

    name: str
    bytes: int
    kind: str  # file, folder, link, device
    handle: zipfile.ZipInfo | tarfile.TarInfo

    @property
    def words(self) -> list[str]:
        """The folders and the file that the name stands for; Windows writes backslashes."""
        return [word for word in self.name.replace("\\", "/").split("/") if word not in ("", ".")]

    @property
    def wanted(self) -> bool:
        """Whether it is a file that is neither hidden nor macOS's double of another."""
        hidden = any(word[0] == "." or word == "__MACOSX" for word in self.words)
        return self.kind == "file" and not hidden


class _Archive(ABC):
    """What zip and tar have in common: entries in the order in which they lie."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse(self, reason: str) -> NoReturn:
        """Raise DataError for what is not unpacked."""
        raise DataError(f"'{self.path}' {reason}; it is not unpacked")

    @abstractmethod
    def members(self) -> Iterator[_Member]:
        """Yield every entry, from the first on; each is opened before the next is asked for."""

    @abstractmethod
    def opened(self, member: _Member) -> IO[bytes]:
        """Return the content of the file that `members` yielded last."""


class _Zip(_Archive):
    def __init__(self, path: Path, file: IO[bytes]) -> None:
        super().__init__(path)
        with _faults(path):
            # zipfile lists all entries, half a kB each, however many the archive says there are.
            self._file = zipfile.ZipFile(Directory(file, self.refuse, MAX_FILES))

    def members(self) -> Iterator[_Member]:
        for info in self._file.infolist():
            if info.flag_bits & 1:
                raise DataError(f"'{self.path}' is encrypted; unpack it and give the folder")
            if info.compress_type == zipfile.ZIP_LZMA:
                # Its decompressor takes as much memory as the archive asks for, up to 4 GB.
                self.refuse("is packed by LZMA; pack it in zip's usual way")
            # The upper half holds what Unix calls the mode, or nothing.
            kind = stat.S_IFMT(info.external_attr >> 16)
            if stat.S_ISLNK(kind):
                word = "link"
            elif info.filename.endswith("/"):
                word = "folder"
            else:
                word = "file" if kind in (0, stat.S_IFREG) else "device"
            yield _Member(info.filename, info.file_size, word, info)

    def opened(self, member: _Member) -> IO[bytes]:
        assert isinstance(member.handle, zipfile.ZipInfo)
        with _faults(self.path):
            return self._file.open(member.handle)


class _Tar(_Archive):
    def members(self) -> Iterator[_Member]:
        with _faults(self.path):
            stream = decompressed(self.path)
        with stream:
            with _faults(self.path):
                self._file = tarfile.TarFile(fileobj=Bounded(stream, self.refuse))
            while True:
                with _faults(self.path):
                    info = self._file.next()
                if info is None:
                    break
                # tarfile lists all it has seen, for links, which are not followed here.
                self._file.members.clear()  # type: ignore[attr-defined] # no stub has it
                if info.size < 0:  # the next header would be this one again, for ever
                    self.refuse(f"holds '{info.name}' of {info.size:,} bytes")
                if info.isdir():
                    kind = "folder"
                elif info.issym() or info.islnk():
                    kind = "link"
                else:
                    kind = "file" if info.isreg() else "device"
                yield _Member(info.name, info.size, kind, info)
            with _faults(self.path):
                self._end(stream)

    def _end(self, stream: IO[bytes]) -> None:
        """Raise if the archive ends early: no end mark, or a checksum that does not fit."""
        stream.seek(self._file.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it ends early")
        for _ in range(64):  # padding; where it ends, the checksum is compared
            if not stream.read(EDGE):
                break

    def opened(self, member: _Member) -> IO[bytes]:
        assert isinstance(member.handle, tarfile.TarInfo)
        with _faults(self.path):
            content = self._file.extractfile(member.handle)
        assert content is not None
        return content


def _open(path: Path, file: IO[bytes]) -> _Archive:
    return _Zip(path, file) if file.read(2) == b"PK" else _Tar(path)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn what an archive's library raises into one sentence."""
    try:
        yield
    except (*_DAMAGED, RuntimeError, ValueError) as error:
        reason = str(error).strip() or type(error).__name__
        raise DataError(
            f"'{path}' is not a whole zip or tar archive "
            f"({path.stat().st_size:,} bytes; {reason.splitlines()[0]}); download or pack it again"
        ) from error


def _check(archive: _Archive) -> tuple[int, int]:
    """Return how many files are wanted and the bytes they take on the disk.

    Raises DataError for the first entry that is not unpacked, before anything is.
    """
    path = archive.path
    packed = path.stat().st_size
    limit = max(ALWAYS_ALLOWED, MAX_GROWTH * packed)
    files = unpacked = needed = 0
    for number, member in enumerate(archive.members()):
        name, words = member.name, member.words
        if name[:1] in ("/", "\\") or name[1:2] == ":" or ".." in words:
            raise DataError(f"'{path}' holds '{name}', which leaves the folder; it is not unpacked")
        if "\0" in name or (member.kind == "file" and not words):
            archive.refuse(f"holds a file whose name is {name[:60]!r}")
        if member.kind in ("link", "device"):
            raise DataError(
                f"'{path}' holds '{name}', a {member.kind}; it is not unpacked: "
                "pack files and folders only"
            )
        if len(words) > MAX_DEPTH or max(map(len, map(os.fsencode, words)), default=0) > MAX_NAME:
            raise DataError(
                f"'{path}' holds '{name[:60]}...': more than {MAX_DEPTH} folders deep or a name of "
                f"more than {MAX_NAME} bytes"
            )
        unpacked += member.bytes
        if number >= MAX_FILES:
            archive.refuse(f"holds more than {MAX_FILES:,} files")
        if unpacked > limit:
            raise DataError(
                f"'{path}' would unpack from {packed:,} bytes to more than {limit:,}; at most "
                f"{ALWAYS_ALLOWED:,} bytes or {MAX_GROWTH} times its size are unpacked"
            )
        if member.wanted:
            files += 1
            needed += _on_disk(member)
    if not files:
        raise DataError(f"'{path}' holds no files")
    return files, needed


def _require_disk(path: Path, target: Path, needed: int) -> None:
    there = next(folder for folder in target.parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise RunError(
            f"unpacking '{path}' needs {needed:,} bytes in {target.parent}, where {free:,} are "
            "free; free some space or choose another folder with THAWNET_CACHE"
        )


def _write(archive: _Archive, member: _Member, path: Path) -> None:
    """Write one file. Its rights, times and owner stay behind."""
    left = member.bytes
    with archive.opened(member) as content:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError):
            raise DataError(
                f"'{archive.path}' holds '{member.name}' twice, or as a file and as a folder"
            ) from None
        with file:
            while True:
                with _faults(archive.path):
                    block = content.read(EDGE)
                left -= len(block)
                if not block or left < 0:
                    break
                file.write(block)
    if left:
        raise DataError(
            f"'{archive.path}': '{member.name}' does not hold the {member.bytes:,} bytes that the "
            "archive declares; download or pack it again"
        )
