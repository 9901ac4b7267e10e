"""Images in any form that callers pass, cut to the square that a network sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import ImageError, UsageError
from ..image.decode import decode, upright_rgb
from ..image.files import read_file
from ..image.preprocess import Preprocess, seen_box, squared

# A callable returns encoded bytes when a thread needs them; it may raise ImageError or OSError.
Picture = str | Path | bytes | Image.Image | NDArray[np.uint8] | Callable[[], bytes]
Box = tuple[float, float, float, float]  # left, top, right, bottom; see preprocess.seen_box


def require_several(images: Iterable[Picture]) -> None:
    """Raise UsageError for a single image, whose characters or rows would be taken for images."""
    is_one = isinstance(images, np.ndarray) and (images.ndim < 3 or images.shape[2:] == (3,))
    if is_one or callable(images) or isinstance(images, str | Path | bytes | Image.Image):
        name = f"'{images}'" if isinstance(images, str | Path) else "a single image"
        raise UsageError(
            f"received {name} where several images are expected: put it in a list; for a "
            "folder, give Path(FOLDER).glob('*.jpg')"
        )


def cut_square(picture: Picture, spec: Preprocess) -> tuple[NDArray[np.uint8], Box] | ImageError:
    """Return the square, (crop, crop, 3), and its box in the image, or why reading failed."""
    try:
        image = _opened(picture, spec.side, spec.bits)
        return squared(image, spec), seen_box(*image.size, spec)
    except ImageError as error:
        return error
    except FileNotFoundError:
        return ImageError("no such file")
    except OSError as error:
        return ImageError(error.strerror or str(error))
    except ValueError as error:  # a path with a zero byte in it
        return ImageError(str(error))


def _opened(picture: Picture, side: int, bits: int) -> Image.Image:
    if isinstance(picture, str | Path):
        return decode(read_file(Path(picture)), side, bits)
    if callable(picture):
        picture = picture()
    if isinstance(picture, bytes):
        return decode(picture, side, bits)
    if isinstance(picture, Image.Image):
        return upright_rgb(picture, bits)
    shape, kind = getattr(picture, "shape", ""), getattr(picture, "dtype", type(picture).__name__)
    if (
        not isinstance(picture, np.ndarray)
        or kind != np.uint8
        or not picture.size
        or not (picture.ndim == 2 or shape[2:] == (3,))
    ):
        raise ImageError(
            f"received {shape} {kind}; expected a path, encoded bytes, a Pillow image, or a "
            "uint8 array, (height, width, 3) or (height, width)"
        )
    return upright_rgb(Image.fromarray(picture))
