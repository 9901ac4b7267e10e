"""Opens http and https addresses alone, and checks each redirect before following it."""

from __future__ import annotations

import functools
import ssl
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, cast
from urllib.parse import urlsplit

# Whatever urllib raises where nothing comes, or not all.
ERRORS = (OSError, HTTPException, ValueError)


def open_address(
    address: str,
    timeout: float,
    check_redirect: Callable[[str, str], None],
) -> HTTPResponse:
    """Open an address, through the proxy that the environment names; redirects are followed.

    timeout: seconds for each read of the socket. check_redirect: is given where a redirect is and
    where it leads, and raises for one that must not be followed. Raises one of ERRORS, urllib's
    HTTPError for another status than 2xx among them.
    """
    headers = {"User-Agent": "thawnet", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - handlers as below
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
    def __init__(self, check_redirect: Callable[[str, str], None]) -> None:
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
            self._check_redirect(req.full_url, newurl)
        except BaseException:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def scheme_of(address: str) -> str:
    """Return an address's scheme in lower case, '' for none."""
    return urlsplit(address).scheme
