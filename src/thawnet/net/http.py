"""Opens addresses: over https or http alone, with limits of time that hold whatever happens."""

from __future__ import annotations

import functools
import ipaddress
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, TypeVar, cast
from urllib.parse import urlsplit

from ..core.errors import first_line

T = TypeVar("T")

# Whatever urllib raises where nothing comes, or not all.
ERRORS = (OSError, HTTPException, ValueError)
ANSWER_SECONDS = 6.0  # for a server to answer; two of them and the imports stay under 30 s
LONGER = "HF_HUB_ETAG_TIMEOUT"  # the hub's own variable for that, for slow proxies and mirrors
PLAIN_HOSTS = "THAWNET_PLAIN_HTTP"  # hosts of a private network that have no https
STALL_SECONDS = 20.0  # a download that brings less than SLOWEST over this long is given up
SLOWEST = 1024  # bytes a second


class FetchError(Exception):
    """Why nothing came, in a few words; the caller makes a sentence of it."""


def open_address(
    address: str, timeout: float, check_redirect: Callable[[str], None] = lambda target: None
) -> HTTPResponse:
    """Open an http or https address, through the proxy that the environment names.

    Redirects are followed, but none from https to http. timeout: seconds for each read of the
    socket. check_redirect: is given where each redirect leads, and raises if that is not allowed.
    Raises one of ERRORS, urllib's HTTPError for another status than 2xx among them.
    """
    opener = urllib.request.OpenerDirector()  # nothing opens file:, ftp: or data:
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_trust()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(check_redirect),
    ):
        opener.add_handler(handler)
    headers = {"User-Agent": "thawnet", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - handlers as above
    return cast("HTTPResponse", opener.open(request, timeout=timeout))


@functools.cache
def _trust() -> ssl.SSLContext:
    """Trust the system's authorities and, where certifi is installed, Mozilla's.

    Python from python.org knows none of its own on macOS.
    """
    context = ssl.create_default_context()
    try:
        import certifi
    except ModuleNotFoundError:  # predicting alone does not bring it
        return context
    context.load_verify_locations(certifi.where())
    return context


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, check_redirect: Callable[[str], None]) -> None:
        self._check_redirect = check_redirect

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            scheme = urlsplit(newurl).scheme
            if scheme not in {"http", "https"} or (scheme == "http" and req.type == "https"):
                raise ValueError(f"it redirects from {req.type} to {scheme}, which is not followed")
            self._check_redirect(newurl)
        except BaseException:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def require_https(address: str) -> None:
    """Raise FetchError for an address that is neither https, nor plain http on this machine.

    Nor plain http of a host that the variable THAWNET_PLAIN_HTTP names.
    """
    named = os.environ.get(PLAIN_HOSTS, "").replace(",", " ").lower().split()
    try:
        parts = urlsplit(address)
        allowed = parts.scheme == "https" or (
            parts.scheme == "http" and (_is_loopback(parts.hostname) or parts.hostname in named)
        )
    except ValueError:  # brackets that do not close, as in https://[::1
        allowed = False
    if not allowed:
        raise FetchError(
            f"'{address}' is not https; plain http is taken from this machine only, and from hosts "
            f"that {PLAIN_HOSTS} names"
        )


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a call returns, or raise TimeoutError: a name look-up has no time limit.

    A call that is given up continues in a thread of its own, which does not keep the process alive.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return results[0]


def answered(call: Callable[[float], T]) -> T:
    """Return what a call returns within `answer_seconds`, which it is given as its time limit."""
    seconds = answer_seconds()
    return within(seconds, lambda: call(seconds))


def answer_seconds() -> float:
    """Return the seconds that a server has to answer: ANSWER_SECONDS, or what LONGER says."""
    try:
        return max(1.0, min(600.0, float(os.environ[LONGER])))
    except (KeyError, ValueError):
        return ANSWER_SECONDS


class MinimumPace:
    """Checks that bytes arrive at SLOWEST or faster, over STALL_SECONDS at a time."""

    def __init__(self) -> None:
        self._bytes = 0
        self._since = time.monotonic()

    def count(self, size: int) -> None:
        """Add bytes that arrived. Raises FetchError when they are too slow."""
        self._bytes += size
        seconds = time.monotonic() - self._since
        if seconds > STALL_SECONDS:
            if self._bytes < SLOWEST * seconds:
                raise FetchError(f"it stalled: {self._bytes:,} bytes in {seconds:.0f} s")
            self._bytes, self._since = 0, time.monotonic()


def reason(error: BaseException) -> str:
    """Return the innermost cause of a failed transfer in a few words."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, TimeoutError):
        return f"no answer within {answer_seconds():.0f} s"
    return getattr(error, "strerror", None) or first_line(error)
