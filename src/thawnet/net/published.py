"""Files fetched by address: over https alone, hash pinned, in bounded time, by one process."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from ..core import console
from ..core.cache import locked
from ..core.files import cache_folder, clear_disk_errors, new_file, sweep
from .http import ERRORS, open_address, scheme_of
from .limits import within

MIRROR = "THAWNET_MIRROR"
ANSWER_SECONDS = 6.0  # for a server to answer; two of them and the imports stay under 30 s
STALL_SECONDS = 20.0  # a download that brings less than SLOWEST over this long is given up
SLOWEST = 1024  # bytes a second
CHUNK = 1 << 18

Tell = Callable[[str], None]


class FetchError(Exception):
    """Why nothing came, in a few words; who asked makes a sentence of it."""


@dataclass(frozen=True)
class Remote:
    """A published file: its base address, name, hash ('md5:...', None if none is published).

    size: bytes; the most that are taken where no hash is published.
    """

    base: str
    name: str
    hash: str | None
    size: int

    @property
    def url(self) -> str:
        """Its address, or that on the mirror that THAWNET_MIRROR names."""
        return f"{(os.environ.get(MIRROR) or self.base).rstrip('/')}/{self.name}"

    @property
    def path(self) -> Path:
        """Where it lies once it is downloaded."""
        return cache_folder() / "downloads" / self.name / self.name


def fetch(remote: Remote, tell: Tell) -> Path:
    """Return the file, downloading it if it is not there whole; a part is never under its name.

    The hash is checked, also of a file that is there already. A broken download starts again.
    When two processes ask, one downloads and the other waits.
    Raises FetchError when it cannot be had, RunError when the disk refuses.
    """
    path = remote.path
    with clear_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent, "downloading", tell):
            sweep(path.parent)  # what a killed process left
            if not path.is_file() or (remote.hash and _hash(remote, path) != remote.hash):
                size = f" ({remote.size / 1e6:,.0f} MB)" if remote.hash else ""
                tell(f"downloading {remote.url}{size}")
                with new_file(path) as file:
                    _download(remote, file)
    return path


def _hash(remote: Remote, path: Path) -> str:
    kind = str(remote.hash).split(":")[0]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    return f"{kind}:{found.hexdigest()}"


def _download(remote: Remote, file: IO[bytes]) -> None:
    """Copy what a server sends, as it is sent, watching its number of bytes and its pace."""
    kind = remote.hash.split(":")[0] if remote.hash else "md5"
    came, pace, digest = 0, MinimumPace(), hashlib.new(kind, usedforsecurity=False)
    require_https(remote.url)
    with _told_why():
        response = within(
            ANSWER_SECONDS, lambda: open_address(remote.url, ANSWER_SECONDS, _check_redirect)
        )
    expected = remote.size if remote.hash is not None else response.length
    with response, console.progress(f"downloading {remote.name}", expected, "bytes") as advance:
        while piece := _read(response):
            came += len(piece)
            if came > remote.size:
                raise FetchError(f"more than the {remote.size:,} bytes expected came")
            file.write(piece)
            digest.update(piece)
            advance(len(piece))
            pace.count(len(piece))
    if expected is not None and came != expected:
        raise FetchError(f"cut off after {came:,} of {expected:,} bytes")
    if remote.hash is not None and f"{kind}:{digest.hexdigest()}" != remote.hash:
        raise FetchError(f"what came is not the published file: its {kind} differs")


def _read(response: HTTPResponse) -> bytes:
    """Return what has arrived: a server that drips cannot hold it for a whole chunk."""
    with _told_why():
        return response.read1(CHUNK)


@contextmanager
def _told_why() -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"HTTP {error.code}") from error
    except (*ERRORS, TimeoutError) as error:
        raise FetchError(reason(error)) from error


def _check_redirect(address: str, target: str) -> None:
    """Follow redirects to https, and of a server on this machine to itself."""
    if scheme_of(target) == "https":
        return
    if scheme_of(address) != "http" or urlsplit(target).netloc != urlsplit(address).netloc:
        raise FetchError("it redirects to plain http, which is not followed")


class MinimumPace:
    """How fast bytes come, over STALL_SECONDS at a time."""

    def __init__(self) -> None:
        self._came = 0
        self._since = time.monotonic()

    def count(self, size: int) -> None:
        """Add bytes that came. Raises FetchError where they come slower than SLOWEST."""
        self._came += size
        passed = time.monotonic() - self._since
        if passed > STALL_SECONDS:
            if self._came < SLOWEST * passed:
                raise FetchError(f"it stalled: {self._came:,} bytes in {passed:.0f} s")
            self._came, self._since = 0, time.monotonic()


def require_https(url: str) -> None:
    """Raise FetchError for an address that is neither https nor plain http on this machine."""
    try:
        parts = urlsplit(url)
        allowed = parts.scheme == "https" or (
            parts.scheme == "http" and _is_loopback(parts.hostname)
        )
    except ValueError:  # brackets that do not close, as in https://[::1
        allowed = False
    if not allowed:
        raise FetchError(f"'{url}' is not https; plain http is taken from this machine only")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def reason(error: BaseException) -> str:
    """Return the innermost cause of a failed transfer in a few words."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, TimeoutError):
        return str(error) if "within" in str(error) else f"no answer within {ANSWER_SECONDS:.0f} s"
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
