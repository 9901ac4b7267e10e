"""Bytes to an upright RGB image, inside limits."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError

# 64 million pixels are 192 MB as RGB: twice what a phone takes, far below what hurts.
MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_PORTABLE = (".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset([*_JPEG, *_PORTABLE, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"])


def decode(data: bytes) -> Image.Image:
    """Return the first frame as an upright RGB image.

    EXIF orientation is applied; transparency is laid over white; 16-bit grey is scaled to 8.
    Raises ImageError with the reason when the bytes are not an image, are damaged, or hold more
    than MAX_PIXELS pixels.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Pillow's own warnings (a bomb, odd EXIF) are answered below or do not matter.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{width} x {height} pixels would take {width * height * 3 / 1e6:,.0f} MB; "
                    f"at most {MAX_PIXELS * 3 / 1e6:,.0f} MB ({MAX_PIXELS:,} pixels) are decoded"
                )
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not an image in a known format") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged input
        raise ImageError(f"damaged: {error}") from error


@dataclass(frozen=True)
class Stored:
    """How an image lies in its file: Pillow's names of its format and colour mode.

    turned: EXIF says to turn or mirror it. animated: there are frames after the first.
    """

    format: str
    mode: str
    turned: bool = False
    animated: bool = False


def describe(data: bytes) -> Stored:
    """Return how an image that `decode` can read is stored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        # A JPEG of several pictures (MPO) is a photo with its preview, not an animation.
        name = "JPEG" if image.format == "MPO" else str(image.format)
        try:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
            animated = name != "JPEG" and bool(getattr(image, "is_animated", False))
        except Exception:  # Pillow's plugins raise nearly anything on damaged input
            turned = animated = False
        return Stored(name, image.mode, turned, animated)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: Pillow's own convert("L") clips at 255 instead of scaling.
        image = image.convert("F").point(lambda value: value / 256.0).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
