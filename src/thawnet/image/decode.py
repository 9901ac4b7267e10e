"""Bytes to an upright RGB image, inside limits."""

from __future__ import annotations

import io
import logging
import os
import re
import select
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..core.errors import ImageError, first_line

# 64 million pixels are 192 MB as RGB: twice what a phone takes, far below what hurts.
MAX_PIXELS = 64_000_000
_MOST = f"at most {MAX_PIXELS * 3 / 1e6:,.0f} MB ({MAX_PIXELS:,} pixels) are decoded"
MAX_FILE_BYTES = 512 * 2**20
PIPE_SECONDS = 60  # without a byte; a download may take as long to begin
# Left for the antialiased reduction after a JPEG's own: 2 as in Pillow's thumbnail.
DRAFT = 2
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_PORTABLE = (".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset([*_JPEG, *_PORTABLE, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"])

# Pillow also logs some of what it raises; without a handler Python would print that.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises OSError, or ImageError for a file that is too large or not regular (a pipe would block).
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a file")
    if status.st_size > MAX_FILE_BYTES:
        raise _too_large(f"the file holds {status.st_size / 1e6:,.0f} MB")
    with path.open("rb", buffering=0) as file:
        return file.read()


def is_pipe(name: str) -> bool:
    """Whether this names a pipe; False where nothing can be called so."""
    try:
        return stat.S_ISFIFO(os.stat(name).st_mode)  # noqa: PTH116 - Path raises for odd names
    except (OSError, ValueError):
        return False


def read_pipe(path: Path) -> bytes:
    """Return all that comes out of a pipe, for one that a person named: /dev/fd/63, a named pipe.

    Raises OSError, or ImageError when too much comes, or nothing for PIPE_SECONDS.
    """
    content = bytearray()
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:  # noqa: PTH123 - a descriptor
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        while ready.poll(1000 * PIPE_SECONDS):
            piece = pipe.read(2**20)
            if piece == b"":
                return bytes(content)
            content += piece or b""  # None: another reader was faster
            if len(content) > MAX_FILE_BYTES:
                raise _too_large("the pipe holds more")
    raise ImageError(f"nothing came out of the pipe for {PIPE_SECONDS} s")


def _too_large(what: str) -> ImageError:
    return ImageError(f"{what}; at most {MAX_FILE_BYTES / 1e6:,.0f} MB are read")


def decode(data: bytes, least_side: int | None = None) -> Image.Image:
    """Return the first frame as an upright RGB image.

    EXIF orientation is applied; transparency is laid over white; 16-bit grey is scaled to 8.
    least_side: pixels of the short side that the image will be reduced to. A JPEG more than
    DRAFT times as large is then decoded at 1/2, 1/4 or 1/8 of its size, which costs a fraction.
    Raises ImageError with the reason when the bytes are not an image, are damaged, or hold more
    than MAX_PIXELS pixels.
    """
    with _reasons():
        image = _opened(data)
        if least_side is not None:
            # Only a JPEG can; of the sizes it offers this takes the smallest that is enough.
            image.draft(None, (DRAFT * least_side, DRAFT * least_side))
        return _upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an opened image as `decode` does; raises ImageError with the reason."""
    with _reasons():
        _check_pixels(image)
        return _upright_rgb(image)


def size(data: bytes) -> tuple[int, int]:
    """Return (width, height) as the header gives them, before EXIF turns them; raises ImageError.

    A file that is damaged further on passes.
    """
    with _reasons():
        return _opened(data).size


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    if data[4:8] == b"ftyp" and re.search(rb"hei[cx]", data[8:32]):  # what iPhones save
        raise ImageError("HEIC, which is not read here; save the photo as JPEG")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_pixels(image)
    return image


def _check_pixels(image: Image.Image) -> None:
    width, height = image.size
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
    except Image.DecompressionBombError as error:  # beyond Pillow's own limit, a higher one
        raise ImageError(f"its pixels would take far too much memory; {_MOST}") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged input
        raise ImageError(f"damaged: {first_line(error)}") from error


class _Quiet:
    """Ignores Pillow's warnings (a bomb, odd EXIF) while any thread decodes.

    With warnings.catch_warnings in each thread, one would restore what another had set.
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


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ImageError(
            "grey levels in 32 bits, of which no file says what is white; save it with 8 or 16 bits"
        )
    image.load()
    return _to_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF says; what cannot be read there says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole; Pillow raises nearly anything on damaged EXIF
        return image


@dataclass(frozen=True)
class Stored:
    """The form of an image in its file."""

    format: str
    """Pillow's name of it, as of the colour mode."""
    mode: str
    turned: bool = False
    """EXIF says to turn or mirror it."""
    animated: bool = False
    """There are frames after the first."""


def decode_stored(data: bytes) -> tuple[Image.Image, Stored]:
    """Return what `decode` does, and how the image lies in its file; raises as it does."""
    with _reasons():
        image = _opened(data)
        # A JPEG of several pictures (MPO) is a photo with its preview, not an animation.
        name = "JPEG" if image.format == "MPO" else str(image.format)
        mode = image.mode
        upright = _upright_rgb(image)
        try:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
            animated = name != "JPEG" and bool(getattr(image, "is_animated", False))
        except Exception:  # Pillow's plugins raise nearly anything on damaged input
            turned = animated = False
        return upright, Stored(name, mode, turned, animated)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own convert("L") clips at 255 instead of scaling.
        image = image.convert("F").point(lambda value: value / 256.0).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
