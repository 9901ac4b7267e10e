"""HEIC, the photo format of iPhones, read by pillow-heif if it is installed."""

from __future__ import annotations

import re
from functools import cache

from ..core.errors import ImageError
from ..core.text import command_line

_BRANDS = re.compile(rb"hei[cxms]|hev[cxms]|mif1|msf1")
INSTALL = command_line("pip", "install", "thawnet[heic]")
LACKING = f"HEIC, which is read where pillow-heif is installed: {INSTALL}"


def is_heic(data: bytes) -> bool:
    """Return whether a file's first bytes mark it as HEIC or HEIF, whatever its name."""
    return data[4:8] == b"ftyp" and data[8:12] != b"avif" and bool(_BRANDS.search(data[8:32]))


def reads_heic() -> bool:
    """Return whether HEIC can be read here."""
    try:
        add_heic()
    except ImageError:
        return False
    return True


@cache
def add_heic() -> str:
    """Register HEIC with Pillow; return Pillow's name of the format.

    Raises ImageError with the pip command if pillow-heif is not installed.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise ImageError(f"{LACKING}; or save the photo as JPEG") from None
    # Never the previews in a file. One thread each: images are decoded in parallel already.
    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    return "HEIF"
