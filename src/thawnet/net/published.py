"""Files fetched by address: over https alone, hash pinned, in bounded time, by one process."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..core.cache import locked
from ..core.files import cache_folder, clear_disk_errors
from .limits import within

if TYPE_CHECKING:
    from requests import Response, Session

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

    pooch checks the hash, also of a file that is there already. It can not resume: a broken
    download starts again. When two processes ask, one downloads and the other waits.
    Raises FetchError when it can not be had, RunError when the disk refuses.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")

    def download(url: str, output_file: str, _pooch: object) -> None:
        tell(f"downloading {url}" + (f" ({remote.size / 1e6:,.0f} MB)" if remote.hash else ""))
        _download(url, Path(output_file), remote)

    folder = remote.path.parent
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, "downloading", tell):
            for leftover in folder.glob("tmp*"):  # of a process that was killed
                leftover.unlink()
            try:
                pooch.retrieve(
                    remote.url, remote.hash, fname=remote.name, path=folder, downloader=download
                )
            except ValueError as error:
                raise FetchError(
                    f"what came is not the published file: its {(remote.hash or '').split(':')[0]} "
                    "differs"
                ) from error
    return remote.path


def _download(url: str, path: Path, remote: Remote) -> None:
    import requests
    import urllib3

    with requests.Session() as session:
        _without_plain_http(session, url)
        try:
            response = within(
                ANSWER_SECONDS,
                lambda: session.get(
                    url,
                    stream=True,
                    timeout=ANSWER_SECONDS,
                    # Some servers declare .tar.gz to be an encoding and would have it unpacked.
                    headers={"Accept-Encoding": "identity"},
                ),
            )
            with response:
                if response.status_code != 200:
                    raise FetchError(f"HTTP {response.status_code}")
                _copy(response, path, remote)
        except requests.exceptions.InvalidSchema as error:
            raise FetchError("it redirects to plain http, which is not followed") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError) as error:
            raise FetchError(reason(error)) from error


def _copy(response: Response, path: Path, remote: Remote) -> None:
    """Copy a response's bytes as they are sent, watching their number and their pace."""
    from tqdm import tqdm

    header = response.headers.get("Content-Length", "")
    expected = int(header) if header.isdecimal() else None
    if remote.hash is not None:
        expected = remote.size
    came, pace = 0, Pace()
    bar = tqdm(
        total=expected, desc=remote.name, unit="B", unit_scale=True, leave=False, disable=None
    )
    with bar, path.open("wb") as file:
        # read1 returns what has arrived: a server that drips can not hold it for a whole chunk.
        while piece := response.raw.read1(CHUNK, decode_content=False):
            came += len(piece)
            if came > remote.size:
                raise FetchError(f"more than the {remote.size:,} bytes expected came")
            file.write(piece)
            bar.update(len(piece))
            pace.count(len(piece))
    if expected is not None and came != expected:
        raise FetchError(f"cut off after {came:,} of {expected:,} bytes")


class Pace:
    """How fast bytes come, over STALL_SECONDS at a time."""

    def __init__(self) -> None:
        self._came = 0
        self._since = time.monotonic()

    def count(self, some: int) -> None:
        """Add bytes that came. Raises FetchError where they come slower than SLOWEST."""
        self._came += some
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


def _without_plain_http(session: Session, url: str) -> None:
    """Leave a session no way to speak plain http, but to the loopback server of `url` itself."""
    require_https(url)
    adapter = session.adapters.pop("http://")
    if url.startswith("http://"):
        session.mount(f"http://{urlsplit(url).netloc}/", adapter)


def reason(error: BaseException) -> str:
    """Return the innermost cause of a failed transfer in a few words."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, TimeoutError):
        return str(error) if "within" in str(error) else f"no answer within {ANSWER_SECONDS:.0f} s"
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
