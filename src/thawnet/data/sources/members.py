"""Files read by name from a folder, or from a tar as it streams by; nothing is unpacked."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from ...core.errors import DataError

LARGEST_ARCHIVE = 1 << 28  # bytes unpacked; the largest of CIFAR's four holds 187 MB


def read_members(path: Path, names: tuple[str, ...], limit: int) -> list[bytes]:
    """Return the files of these names, each of at most `limit` bytes, in that order.

    path: a folder, or a tar, plain or gzipped, in which they may lie in any folder.
    Raises DataError when one is missing or too large, or the archive is damaged.
    """
    found: dict[str, bytes] = {}
    with _clear(path), _files(path) as files:
        for name, size, read in files:
            if name not in names or name in found:
                continue
            if size > limit:
                raise DataError(
                    f"'{path}': {name} is {size:,} bytes, expected at most {limit:,}; "
                    "download it again"
                )
            found[name] = read()
            if len(found) == len(names):
                break
    for name in names:
        if name not in found:
            raise DataError(f"'{path}' lacks '{name}'; download it again")
    return [found[name] for name in names]


Files = Iterator[tuple[str, int, Callable[[], bytes]]]  # name, bytes, the reading of it


@contextmanager
def _files(path: Path) -> Iterator[Files]:
    """Yield the regular files in a folder, or of a tar as they stream by; nothing is unpacked."""
    if path.is_dir():
        yield (
            (file.name, file.stat().st_size, file.read_bytes)
            for file in sorted(path.iterdir())
            if file.is_file()
        )
        return
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        limited: Any = _Limited(gzip.GzipFile(fileobj=raw) if packed else raw, path)
        with tarfile.open(fileobj=limited, mode="r|") as tar:
            yield (
                (Path(member.name).name, member.size, partial(_member, tar, member))
                for member in tar
                if member.isreg() and not member.issparse()
            )
        while limited.read(1 << 20):  # gzip checks its sum at the end, and only if that is read
            pass


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = tar.extractfile(member)
    assert opened is not None
    content = opened.read()
    if len(content) != member.size:
        raise EOFError(f"{member.name} ends early")
    return content


class _Limited(io.RawIOBase):
    """A stream that ends in an error after LARGEST_ARCHIVE bytes, so that no bomb unpacks."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, path: Path) -> None:
        self.stream = stream
        self.place = path
        self.left = LARGEST_ARCHIVE

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(min(size, self.left + 1) if size >= 0 else self.left + 1)
        self.left -= len(content)
        if self.left < 0:
            raise DataError(
                f"'{self.place}' unpacks to over {LARGEST_ARCHIVE:,} bytes: more than it should"
            )
        return content


@contextmanager
def _clear(path: Path) -> Iterator[None]:
    """Turn what a damaged archive or an unreadable file raises into one sentence."""
    try:
        yield
    except (EOFError, ValueError, tarfile.TarError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"'{path}' is cut or damaged ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror or error})") from error
