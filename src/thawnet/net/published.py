"""Published files: downloaded over https, hash pinned, in bounded time, by one process."""

from __future__ import annotations

import hashlib
import os
import urllib.error
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..core import console
from ..core.cache import locked
from ..core.files import cache_folder, clear_disk_errors, new_file, sweep
from .http import (
    ERRORS,
    FetchError,
    MinimumPace,
    answered,
    open_address,
    reason,
    require_https,
)

MIRROR = "THAWNET_MIRROR"
CHUNK = 1 << 18

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Remote:
    """A published file."""

    base: str
    """The address of its folder."""
    name: str
    md5: str | None
    """None if none is published."""
    size: int
    """In bytes; only an upper limit if no MD5 is published."""

    @property
    def url(self) -> str:
        """The address of the file, on the mirror THAWNET_MIRROR if that is set."""
        return f"{(os.environ.get(MIRROR) or self.base).rstrip('/')}/{self.name}"

    @property
    def path(self) -> Path:
        """The path of the downloaded file."""
        return cache_folder() / "downloads" / self.name / self.name


def fetch(remote: Remote, tell: Tell) -> Path:
    """Return the path of a file, downloading it if it is missing or damaged.

    The hash is checked, also of an existing file. A partial download never has the final name, and
    a broken one starts again. If two processes need the file, one downloads and the other waits.
    Raises FetchError if the download fails, RunError on a disk error.
    """
    path = remote.path
    with clear_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent, "downloading", tell):
            sweep(path.parent)  # what a killed process left
            if not (path.is_file() and _is_published(remote, path)):
                size = f" ({remote.size / 1e6:,.0f} MB)" if remote.md5 else ""
                tell(f"downloading {remote.url}{size}")
                with new_file(path) as file:
                    _download(remote, file)
    return path


def _is_published(remote: Remote, path: Path) -> bool:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return remote.md5 in (None, digest.hexdigest())


def _download(remote: Remote, file: IO[bytes]) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with closing(_pieces(remote)) as pieces:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
    if remote.md5 not in (None, digest.hexdigest()):
        raise FetchError("what came is not the published file: its md5 differs")


def _pieces(remote: Remote) -> Generator[bytes, None, None]:
    """Yield a file's bytes as they arrive. Raises FetchError unless all of them do, in time."""
    require_https(remote.url)
    received, pace = 0, MinimumPace()
    try:
        response = answered(lambda seconds: open_address(remote.url, seconds, require_https))
        expected = response.length if remote.md5 is None else remote.size
        with response, console.progress(f"downloading {remote.name}", expected, "bytes") as advance:
            while piece := response.read1(CHUNK):  # a slow server need not fill a chunk
                received += len(piece)
                if received > remote.size:
                    raise FetchError(f"more than the {remote.size:,} bytes expected came")
                yield piece
                advance(len(piece))
                pace.count(len(piece))
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"HTTP {error.code}") from error
    except ERRORS as error:
        raise FetchError(reason(error)) from error
    if expected is not None and received != expected:
        raise FetchError(f"cut off after {received:,} of {expected:,} bytes")
