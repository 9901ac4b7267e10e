"""Decoding of image files to upright RGB images, within limits."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from ..core.errors import ImageError, first_line
from . import jpeg
from .heic import add_heic, is_heic
from .profiles import to_srgb

# 64 million pixels are 192 MB as RGB: as many as most phones take, too few to do harm.
MAX_PIXELS = 64_000_000
_MOST = f"at most {MAX_PIXELS * 3 / 1e6:,.0f} MB ({MAX_PIXELS:,} pixels) are decoded"
# Limit for a JPEG decoded at reduced size: the 200 million of a phone take half a second.
MAX_JPEG_PIXELS = 256_000_000
# The factor left for the antialiased reduction after the JPEG's own; 2 as in Pillow's thumbnail.
DRAFT = 2
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_PORTABLE = (".ppm", ".pgm", ".pbm", ".pnm")
_BOXES = (".heic", ".heif", ".hif", ".avif")
SUFFIXES = frozenset(
    [*_JPEG, *_PORTABLE, *_BOXES, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"]
)
NAMED = "JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP, TIFF or PPM"
LEVEL_BITS = (8, 10, 12, 14, 16)  # that cameras and scanners store in 16

# Pillow also logs some of what it raises; without a handler Python would print that.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def decode(data: bytes, least_side: int | None = None, bits: int = 0) -> Image.Image:
    """Return the first frame as an upright sRGB image.

    EXIF orientation and ICC profile are applied; transparency is composited over white.
    bits: how many bits 16-bit grey levels use; they are scaled to 8. 0: the fewest of LEVEL_BITS
    that hold the image's brightest level.
    least_side: short side in pixels that the image will be reduced to. A JPEG more than DRAFT times
    as large is decoded at 1/2, 1/4 or 1/8 of its size, which is much faster. Without `least_side`,
    only a JPEG over MAX_PIXELS is decoded at reduced size.
    Raises ImageError with the reason if the bytes are not an image, are damaged, or would be
    decoded to more than MAX_PIXELS pixels.
    """
    with _reasons():
        return _decoded(_opened(data), data, least_side, bits)


def upright_rgb(image: Image.Image, bits: int = 0) -> Image.Image:
    """Convert an opened image as `decode` does. Raises ImageError with the reason."""
    with _reasons():
        _check_pixels(*image.size)
        return _upright_rgb(image, bits)


def level_bits(data: bytes) -> int:
    """Return how many bits 16-bit grey levels use; 0 for other and for damaged images."""
    try:
        with _reasons():
            image = _opened(data)
            return _level_bits(image) if image.mode.startswith("I") else 0
    except ImageError:
        return 0


def size(data: bytes) -> tuple[int, int]:
    """Return (width, height) from the header, before EXIF rotation. Raises ImageError.

    A file that is damaged after its header, or has too many pixels, passes.
    """
    with _reasons():
        return _opened(data).size


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    if data.startswith(b"\xff\xd8\xff"):
        # Image.open refuses over 179 million pixels, even if they will be decoded at reduced size.
        return JpegImagePlugin.jpeg_factory(io.BytesIO(data))
    formats = (*FORMATS, add_heic()) if is_heic(data) else FORMATS
    return Image.open(io.BytesIO(data), formats=formats)


def _decoded(image: Image.Image, data: bytes, least_side: int | None, bits: int = 0) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        if image.format not in ("JPEG", "MPO"):
            _check_pixels(width, height)
        elif not jpeg.streams(data):
            raise ImageError(
                f"{width} x {height} pixels of a progressive JPEG; {_MOST}, or {MAX_JPEG_PIXELS:,} "
                "of a baseline JPEG: save it as a baseline JPEG, or smaller"
            )
    if width * height > MAX_JPEG_PIXELS:
        raise ImageError(
            f"{width} x {height} pixels; of a JPEG at most {MAX_JPEG_PIXELS:,} are read"
        )
    # Has an effect on JPEGs only: selects the smallest decoding size that is large enough.
    if least_side is not None:
        image.draft(None, (DRAFT * least_side, DRAFT * least_side))
    elif width * height > MAX_PIXELS:
        scale = 2 if width * height <= 4 * MAX_PIXELS else 4
        image.draft(None, (width // scale, height // scale))
    _check_pixels(*image.size)
    return _upright_rgb(image, bits)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{width} x {height} pixels would take {width * height * 3 / 1e6:,.0f} MB; {_MOST}"
        )


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever Pillow raises into an ImageError that gives the reason."""
    try:
        with _quiet:
            yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not an image in a known format") from None
    except Image.DecompressionBombError as error:  # over Pillow's own, higher limit
        raise ImageError(f"its pixels would take far too much memory; {_MOST}") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged input
        raise ImageError(f"damaged: {first_line(error)}") from error


class _Quiet:
    """Ignore Pillow's warnings (decompression bombs, odd EXIF) while any thread decodes.

    With warnings.catch_warnings in each thread, one thread would undo the filters of another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)


_quiet = _Quiet()


def _upright_rgb(image: Image.Image, bits: int) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ImageError(
            "grey levels in 32 bits, whose white level is not defined; save it with 8 or 16 bits"
        )
    upper_half = not image.mode.startswith("I") and ";16" in str(getattr(image, "tile", ""))
    image.load()
    if upper_half and np.asarray(image.convert("RGB")).max() < 16:
        raise ImageError(
            "colours in 16 bits of which only the lowest 12 are used; save it with 8 bits a colour"
        )
    return _to_rgb(_upright(image), bits)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; EXIF data that cannot be read is ignored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are intact; Pillow raises nearly anything on damaged EXIF
        return image


@dataclass(frozen=True)
class Stored:
    """How an image is stored in its file."""

    format: str
    """Pillow's name of the format."""
    mode: str
    """Pillow's mode; for 16-bit grey, how many bits the levels use."""
    size: tuple[int, int]
    """Width and height in pixels, upright."""
    turned: bool = False
    """Whether EXIF rotates or mirrors it."""
    animated: bool = False
    """Whether it has more than one frame."""


def decode_stored(data: bytes) -> tuple[Image.Image, Stored]:
    """Return the image as `decode` does, and how it is stored. Raises as `decode` does."""
    with _reasons():
        image = _opened(data)
        # A JPEG of several pictures (MPO) is a photo with its preview, not an animation.
        name = "JPEG" if image.format == "MPO" else str(image.format)
        mode, (width, height) = image.mode, image.size
        upright = _decoded(image, data, None)
        if mode.startswith("I"):
            mode = f"grey of {_level_bits(image)} bits in 16"
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            animated = name != "JPEG" and bool(getattr(image, "is_animated", False))
        except Exception:  # Pillow's plugins raise nearly anything on damaged input
            orientation, animated = 1, False
        if orientation in range(5, 9):
            width, height = height, width
        return upright, Stored(name, mode, (width, height), orientation in range(2, 9), animated)


def _to_rgb(image: Image.Image, bits: int) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own convert("L") clips at 255 instead of scaling.
        scale = 2 ** (8 - (bits or _level_bits(image)))
        image = image.convert("F").point(lambda value: value * scale).convert("L")
    if image.mode in ("P", "PA"):
        image = image.convert(
            "RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB"
        )
    image = to_srgb(image)
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _level_bits(image: Image.Image) -> int:
    """Return how many bits 16-bit grey levels use, such as 12 from many cameras and X-rays."""
    brightest = int(np.asarray(image).max())
    return next(bits for bits in LEVEL_BITS if brightest < 2**bits)
