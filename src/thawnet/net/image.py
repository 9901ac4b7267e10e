"""Images fetched over http or https, within limits of size and time."""

from __future__ import annotations

import time
import urllib.error
from urllib.parse import quote

from ..core.errors import ImageError
from .http import ERRORS, open_address, reason, within

MAX_BYTES = 64 * 2**20
SILENCE_SECONDS = 10.0  # without a byte
MOST_SECONDS = 60.0  # for a whole image
CHUNK = 2**16
RESERVED = ":/?#[]@!$&'()*+,;=%~"  # characters that are not escaped in an address (RFC 3986)


def is_address(name: str) -> bool:
    """Return whether a name is an address, such as https://example.org/rose.jpg, and not a file."""
    return name.lower().startswith(("http://", "https://"))


def fetch_image(address: str) -> bytes:
    """Return the bytes of an image at an http or https address.

    At most MAX_BYTES, within MOST_SECONDS including name look-up and redirects. At most ten
    redirects are followed, and none from https to http.
    Raises ImageError with the reason.
    """
    if not is_address(address):
        raise ImageError("not an http or https address")
    ends = time.monotonic() + MOST_SECONDS
    try:
        # A socket's time limit is for each read: headers and chunk sizes could trickle for ever.
        return within(MOST_SECONDS, lambda: _content(address, ends))
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"the server answered {error.code} {error.reason}") from error
    except TimeoutError:
        if time.monotonic() >= ends:
            raise ImageError(f"not complete after {MOST_SECONDS:.0f} s") from None
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
                raise ImageError(f"larger than {MAX_BYTES >> 20} MiB, the limit")
            if time.monotonic() > ends:  # the caller has given up already
                raise TimeoutError
        if response.length:
            raise ImageError(f"cut short: {response.length:,} bytes are missing")
    return bytes(content)
