"""Requests over https or http, with hard time limits."""

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

# All that urllib raises if a transfer fails or is cut short.
ERRORS = (OSError, HTTPException, ValueError)
ANSWER_SECONDS = 6.0  # for a server to answer; two of them and the imports stay under 30 s
LONGER = "HF_HUB_ETAG_TIMEOUT"  # the hub's variable for this, for slow proxies and mirrors
PLAIN_HOSTS = "THAWNET_PLAIN_HTTP"  # hosts of a private network without https
STALL_SECONDS = 20.0  # a download slower than SLOWEST over this period is abandoned
SLOWEST = 1024  # bytes a second


class FetchError(Exception):
    """A failed transfer, with a short reason that the caller puts into a sentence."""


def open_address(
    address: str, timeout: float, check_redirect: Callable[[str], None] = lambda target: None
) -> HTTPResponse:
    """Open an http or https address, through the proxy that the environment names.

    Redirects are followed, but none from https to http. timeout: seconds for each read of the
    socket. check_redirect: called with the target of each redirect; raises if it is not allowed.
    Raises one of ERRORS, such as urllib's HTTPError for a status other than 2xx.
    """
    opener = urllib.request.OpenerDirector()  # without handlers for file:, ftp: or data:
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
    """Return a context that trusts the system's CAs and, if certifi is installed, Mozilla's.

    On macOS, Python from python.org has no CAs of its own.
    """
    context = ssl.create_default_context()
    try:
        import certifi
    except ModuleNotFoundError:  # predicting alone does not install it
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
    """Raise FetchError unless an address is https, or plain http on an allowed host.

    Allowed are this machine and the hosts that THAWNET_PLAIN_HTTP names.
    """
    named = os.environ.get(PLAIN_HOSTS, "").replace(",", " ").lower().split()
    try:
        parts = urlsplit(address)
        allowed = parts.scheme == "https" or (
            parts.scheme == "http" and (is_loopback(parts.hostname) or parts.hostname in named)
        )
    except ValueError:  # brackets that do not close, as in https://[::1
        allowed = False
    if not allowed:
        raise FetchError(
            f"'{address}' is not https; plain http is taken from this machine only, and from hosts "
            f"that {PLAIN_HOSTS} names"
        )


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or IP address is this machine's own, for itself alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call, or raise TimeoutError after `seconds`.

    A name look-up, for example, has no time limit of its own. A call that timed out continues in a
    daemon thread, which does not keep the process alive.
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
    """Return the result of a call within `answer_seconds`, which it receives as its time limit."""
    seconds = answer_seconds()
    return within(seconds, lambda: call(seconds))


def answer_seconds() -> float:
    """Return the seconds that a server has to answer: the variable LONGER, or ANSWER_SECONDS."""
    try:
        return max(1.0, min(600.0, float(os.environ[LONGER])))
    except (KeyError, ValueError):
        return ANSWER_SECONDS


class MinimumPace:
    """Check that bytes arrive at SLOWEST or faster, over STALL_SECONDS at a time."""

    def __init__(self) -> None:
        self._bytes = 0
        self._since = time.monotonic()

    def count(self, size: int) -> None:
        """Add the bytes that arrived. Raises FetchError if they are too slow."""
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
