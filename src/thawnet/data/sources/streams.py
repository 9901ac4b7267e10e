"""Files as streams that give no more at once than what they hold can need."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn, cast

MAX_HEADER = 2**24  # bytes of a tar's header; long names take hundreds
MAX_DIRECTORY = 2**29  # bytes of a zip's directory; two million entries take half of it
MAX_DICTIONARY = 2**28  # bytes of memory for xz; its strongest preset takes 64 MiB
BLOCK = 2**18  # bytes that are decompressed at a time
TAIL = 2**17  # bytes after that; a comment of 64 kB among them
ENTRY = b"PK\x01\x02"  # begins every entry there

Refuse = Callable[[str], NoReturn]  # raises for a reason


class Bounded(io.RawIOBase):
    """A stream that is never read in one piece: a header may call itself gigabytes long."""

    most = MAX_HEADER

    def __init__(self, stream: IO[bytes], refuse: Refuse) -> None:
        self._stream = stream
        self._refuse = refuse

    def read(self, count: int = -1) -> bytes:
        """Return up to `count` bytes."""
        if not 0 <= count <= self.most:
            self._refuse(f"has a header of {count:,} bytes")
        return self._stream.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return which byte is next."""
        return self._stream.tell()


class Directory(Bounded):
    """A zip's stream, whose entries are counted before they are taken apart."""

    most = MAX_DIRECTORY

    def __init__(self, stream: IO[bytes], refuse: Refuse, entries: int) -> None:
        super().__init__(stream, refuse)
        self._entries = entries

    def read(self, count: int = -1) -> bytes:
        """Return up to `count` bytes, or those that follow a zip's directory."""
        content = super().read(TAIL if count < 0 else count)
        if content.count(ENTRY) > self._entries:
            self._refuse(f"holds more than {self._entries:,} files")
        return content


class _Xz(io.RawIOBase):
    """An .xz file's content. Unlike lzma.open it takes no more memory than is stated above.

    An archive asks for its dictionary's size, up to 4 GB.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._begin()

    def _begin(self) -> None:
        self._file.seek(0)
        self._stream = self._next_stream()
        self._at = 0

    def _next_stream(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_DICTIONARY)

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is, backwards by beginning again."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, in part perhaps; return how many bytes were read, 0 at the end."""
        while True:
            if self._stream.eof:  # several may follow each other, padded with zeros
                rest = self._stream.unused_data
                while not rest.strip(b"\0"):
                    if not (rest := self._file.read(BLOCK)):
                        return 0
                self._stream = self._next_stream()
                given = rest.lstrip(b"\0")
            elif self._stream.needs_input:
                if not (given := self._file.read(BLOCK)):
                    raise EOFError("it ends early")
            else:
                given = b""
            content = self._stream.decompress(given, len(buffer))
            if content:
                buffer[: len(content)] = content
                self._at += len(content)
                return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, at most to the end, from which none can be counted."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the length is not known")
        goal = offset + (self._at if whence == io.SEEK_CUR else 0)
        if goal < self._at:
            self._begin()
        scratch = bytearray(BLOCK)
        while self._at < goal:
            if not self.readinto(memoryview(scratch)[: goal - self._at]):
                break
        return self._at

    def tell(self) -> int:
        """Return which byte is next."""
        return self._at

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()


def decompressed(path: Path) -> IO[bytes]:
    """Return the content of a file that is packed by gzip, bzip2, xz or not at all."""
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(path))
    if head.startswith(b"BZh"):
        return bz2.open(path)
    if head.startswith(b"\xfd7zXZ\0"):
        return io.BufferedReader(_Xz(path.open("rb")), BLOCK)
    return path.open("rb")
