"""Entries of zip and tar archives, in archive order and in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from ...core.errors import DataError
from ...core.text import command_line
from .zip_names import name_of, raw_name, readings

MAX_FILES = 2_000_000  # ImageNet has 1.3 million
MAX_HEADER = 2**24  # bytes of a tar's header; long names take hundreds
MAX_DIRECTORY = 2**29  # bytes of a zip's directory; two million entries take half of it
MAX_DICTIONARY = 2**28  # bytes of memory for xz; its strongest preset takes 64 MiB
BLOCK = 2**18  # bytes that are decompressed at a time
TAIL = 2**17  # bytes after a zip's directory, including a comment of up to 64 kB
ZIP_ENTRY = b"PK\x01\x02"  # begins every entry of a zip's directory

# What the libraries raise for a damaged archive.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(EOFError, OSError, RuntimeError, ValueError),
)


@dataclass(frozen=True)
class Entry:
    """One entry of an archive."""

    archive: Path
    name: str
    size: int
    """Bytes of its content, as the archive declares them."""
    kind: str
    """file, folder, link or device"""
    open: Callable[[], IO[bytes] | None]
    """Opens its content; valid until the next entry is read."""

    @property
    def words(self) -> list[str]:
        """The name, split into folders and file; Windows writes backslashes."""
        return [word for word in self.name.replace("\\", "/").split("/") if word not in ("", ".")]

    @property
    def visible_file(self) -> bool:
        """Whether it is a file, neither hidden nor in macOS's __MACOSX folder."""
        hidden = any(word[0] == "." or word == "__MACOSX" for word in self.words)
        return self.kind == "file" and not hidden

    def blocks(self) -> Iterator[bytes]:
        """Yield the content. Raises DataError when it is damaged or not of the declared size."""
        left = self.size
        with faults(self.archive):
            content = self.open()
            assert content is not None
            with content:
                while block := content.read(BLOCK):
                    left -= len(block)
                    yield block
        if left:
            raise DataError(
                f"'{self.archive}': '{self.name}' does not hold the {self.size:,} bytes that the "
                "archive declares; download or pack it again"
            )


Entries = Callable[[], Iterator[Entry]]  # each call reads the archive from its first entry


def read_entries(path: Path, file: IO[bytes]) -> Entries:
    """Return a function that reads the entries of the archive `path`, opened as `file`.

    Both raise DataError if the archive is damaged or needs too much memory.
    """
    if file.read(2) != b"PK":
        return partial(_tar_entries, path, file)
    with faults(path):
        # zipfile lists all entries, half a kB each, whatever count is declared; _ZipFile limits it.
        archive = zipfile.ZipFile(cast("IO[bytes]", _ZipFile(path, file)))
    return partial(_zip_entries, path, archive)


def refusal(path: Path, reason: str) -> DataError:
    """Return the error for an archive that is not unpacked."""
    return DataError(f"'{path}' is not unpacked: it {reason}")


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turn what an archive's library raises into a DataError."""
    try:
        yield
    except _DAMAGED as error:
        reason = str(error).strip() or type(error).__name__
        raise DataError(
            f"'{path}' is not a whole zip or tar archive "
            f"({path.stat().st_size:,} bytes; {reason.splitlines()[0]}); download or pack it again"
        ) from error


def _zip_entries(path: Path, archive: zipfile.ZipFile) -> Iterator[Entry]:
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise DataError(f"'{path}' is encrypted; unpack it and give the folder")
        if info.compress_type == zipfile.ZIP_LZMA:
            # Its decompressor takes as much memory as the archive declares, up to 4 GB.
            raise refusal(
                path, "is compressed with LZMA; compress it with Deflate, zip's usual way"
            )
        name = name_of(info)
        if name is None and info.filename.endswith("/"):
            continue  # Python 3.14 writes folders in cp437, the files in them in UTF-8
        if name is None:
            raise refusal(
                path,
                f"does not say how its names are encoded: one may be {readings(raw_name(info))}; "
                "pack it again with names in UTF-8, or unpack it by "
                + command_line("python", "-m", "zipfile", "--metadata-encoding", "CODE-PAGE", "-e")
                + f" {command_line(path, 'FOLDER')} and give the folder",
            )
        mode = stat.S_IFMT(info.external_attr >> 16)  # the Unix file type, 0 if there is none
        if stat.S_ISLNK(mode):
            kind = "link"
        elif name.endswith("/") or (name.endswith("\\") and not info.file_size):
            kind = "folder"
        else:
            kind = "file" if mode in (0, stat.S_IFREG) else "device"
        yield Entry(path, name, info.file_size, kind, partial(archive.open, info))


def _tar_entries(path: Path, file: IO[bytes]) -> Iterator[Entry]:
    with faults(path):
        content = _decompressed(file)
        stream = _TarStream(path, content)
        archive = tarfile.TarFile(fileobj=cast("IO[bytes]", stream))
        count = 0
        while info := archive.next():
            stream.header = archive.offset
            # tarfile keeps all members to resolve links, which are not followed here.
            archive.members.clear()  # type: ignore[attr-defined] # no stub has it
            count += 1
            if count > MAX_FILES:
                raise refusal(path, f"holds more than {MAX_FILES:,} files")
            if info.size < 0:  # the next header would be this one again: an endless loop
                raise refusal(path, f"holds '{info.name}' of {info.size:,} bytes")
            if info.isdir():
                kind = "folder"
            elif info.issym() or info.islnk():
                kind = "link"
            else:
                kind = "file" if info.isreg() else "device"
            yield Entry(path, info.name, info.size, kind, partial(archive.extractfile, info))
        if stream.last != bytes(tarfile.BLOCKSIZE):  # tarfile stops at others too
            raise EOFError("it ends early")
        for _ in range(256):  # read the padding: the checksum is verified at its end
            if not content.read(BLOCK):
                break


class _ZipFile:
    """A zip file that refuses to read a directory that is too large."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, count: int = -1) -> bytes:
        if count < 0:
            count = TAIL  # everything after the directory
        if count > MAX_DIRECTORY:
            raise refusal(self._path, f"has a directory of {count:,} bytes")
        content = self._file.read(count)
        if content.count(ZIP_ENTRY) > MAX_FILES:
            raise refusal(self._path, f"holds more than {MAX_FILES:,} files")
        return content


class _TarStream:
    """A tar file that refuses to read large headers: one may declare a size of gigabytes."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path = path
        self._stream = stream
        self.header = 0
        """Where the next header begins."""
        self.last = b""
        """The bytes that were read last."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, count: int) -> bytes:
        if count < 0 or self.tell() + count > self.header + MAX_HEADER:
            raise refusal(self._path, f"has a header of over {MAX_HEADER:,} bytes")
        self.last = self._stream.read(count)
        return self.last


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    """Return the content of a file compressed with gzip, bzip2, xz or not at all."""
    file.seek(0)
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return bz2.open(file)
    if head.startswith(b"\xfd7zXZ\0"):
        return io.BufferedReader(_Xz(file), BLOCK)
    return file


class _Xz(io.RawIOBase):
    """An .xz file's content, read forwards in at most MAX_DICTIONARY bytes of memory.

    lzma.open has no such limit, and an archive may declare a dictionary of up to 4 GB.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._at = 0
        self._begin_stream()

    def _begin_stream(self) -> None:
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_DICTIONARY)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = b""
        while not content:
            packed = b""
            if self._stream.eof:  # several streams may follow each other, padded with zeros
                packed = self._stream.unused_data.lstrip(b"\0")
                while not packed:
                    if not (block := self._file.read(BLOCK)):
                        return 0
                    packed = block.lstrip(b"\0")
                self._begin_stream()
            elif self._stream.needs_input and not (packed := self._file.read(BLOCK)):
                raise EOFError("it ends early")
            content = self._stream.decompress(packed, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._at:
            raise io.UnsupportedOperation("it is read forwards only")
        while self._at < offset and self.read(min(BLOCK, offset - self._at)):
            pass
        return self._at

    def tell(self) -> int:
        return self._at
