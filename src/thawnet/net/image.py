"""An image by its address: bytes over http or https, inside limits of size and time."""

from __future__ import annotations

import time
import urllib.error
from urllib.parse import quote

from ..core.errors import ImageError
from .http import ERRORS, open_address, reason, within

MAX_BYTES = 64 * 2**20
SILENCE_SECONDS = 10.0  # without a byte
MOST_SECONDS = 60.0  # for the whole of an image
CHUNK = 2**16
RESERVED = ":/?#[]@!$&'()*+,;=%~"  # what keeps its meaning in an address (RFC 3986)


def is_address(name: str) -> bool:
    """True for an address, as in https://example.org/rose.jpg; False for a file's name."""
    return name.lower().startswith(("http://", "https://"))


def fetch_image(address: str) -> bytes:
    """Return what lies at an http or https address.

    At most MAX_BYTES, within MOST_SECONDS, name look-up and redirects included; these are followed,
    ten at most and none from https to http.
    Raises ImageError with the reason.
    """
    if not is_address(address):
        raise ImageError("not an http or https address")
    ends = time.monotonic() + MOST_SECONDS
    try:
        # A socket's time limit is for each read: headers and lengths of chunks could drip for ever.
        return within(MOST_SECONDS, lambda: _content(address, ends))
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"the server answered {error.code} {error.reason}") from error
    except TimeoutError:
        if time.monotonic() >= ends:
            raise ImageError(f"not there after {MOST_SECONDS:.0f} s") from None
        raise ImageError(f"the server said nothing for {SILENCE_SECONDS:.0f} s") from None
    except ERRORS as error:
        raise ImageError(f"cannot be fetched ({reason(error)})") from error


def _content(address: str, ends: float) -> bytes:
    content = bytearray()
    plain = quote(address, RESERVED, errors="surrogateescape")
    with open_address(plain, SILENCE_SECONDS) as response:
        while piece := response.read1(CHUNK):
            content += piece
            if len(content) > MAX_BYTES:
                raise ImageError(f"more than {MAX_BYTES / 1e6:,.0f} MB came from there")
            if time.monotonic() > ends:  # the caller has given up already
                raise TimeoutError
        if response.length:
            raise ImageError(f"cut short: {response.length:,} bytes of it did not come")
    return bytes(content)
