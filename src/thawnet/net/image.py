"""An image by its address: bytes over http or https, inside limits of size and time."""

from __future__ import annotations

import time
import urllib.error
from urllib.parse import quote

from ..core.errors import ImageError, first_line
from .http import ERRORS, open_address, scheme_of
from .limits import within

SCHEMES = ("http", "https")
MAX_BYTES = 64 * 2**20
SILENCE_SECONDS = 10.0  # without a byte
MOST_SECONDS = 60.0  # for the whole of an image
_LATE = "not there after {:.0f} s"
CHUNK = 2**16
RESERVED = ":/?#[]@!$&'()*+,;=%~"  # what keeps its meaning in an address (RFC 3986)


def fetch_image(address: str) -> bytes:
    """Return what lies at an http or https address.

    At most MAX_BYTES, within MOST_SECONDS, name look-up and redirects included; these are followed,
    ten at most and none from https to http.
    Raises ImageError with the reason.
    """
    if not address.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        raise ImageError("not an http or https address")
    ends = time.monotonic() + MOST_SECONDS
    try:
        # A socket's time limit is for each read: headers and lengths of chunks could drip for ever.
        return within(MOST_SECONDS, lambda: _content(address, ends))
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ImageError(f"cannot be fetched ({_reason(error.reason)})") from error
    except TimeoutError:
        if time.monotonic() >= ends:
            raise ImageError(_LATE.format(MOST_SECONDS)) from None
        raise ImageError(f"the server said nothing for {SILENCE_SECONDS:.0f} s") from None
    except ERRORS as error:
        raise ImageError(f"cannot be fetched ({_reason(error)})") from error


def _content(address: str, ends: float) -> bytes:
    """Return what lies at an address; raises whatever urllib does, or ImageError."""
    content = bytearray()
    plain = quote(address, RESERVED, errors="surrogateescape")
    with open_address(plain, SILENCE_SECONDS, _check_redirect) as response:
        while some := response.read1(CHUNK):
            content += some
            if len(content) > MAX_BYTES:
                raise ImageError(f"more than {MAX_BYTES / 1e6:,.0f} MB came from there")
            if time.monotonic() > ends:  # whoever asked has given up already
                raise ImageError(_LATE.format(MOST_SECONDS))
        if response.length:
            raise ImageError(f"cut short: {response.length:,} bytes of it did not come")
    return bytes(content)


def _reason(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error) if isinstance(error, BaseException) else str(error)


def _check_redirect(address: str, target: str) -> None:
    """Follow redirects to web addresses only, and none that gives up https."""
    scheme = scheme_of(target)
    if scheme not in SCHEMES or (scheme_of(address) == "https" and scheme != "https"):
        raise ImageError(f"it redirects to an address of another kind, {scheme}")
