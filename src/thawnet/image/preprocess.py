"""The preprocessing of an image, as one small specification that a bundle stores."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import ImageError
from .decode import MAX_PIXELS

MAX_SIDE = 4096  # pixels; no network sees more


@dataclass(frozen=True)
class Preprocess:
    """Steps from an image to the network: reduce once, crop the middle, enlarge, normalise."""

    size: int
    """Pixels a side that the network sees."""
    side: int
    """Pixels of the short side that the store keeps; the reduction is antialiased."""
    mean: tuple[float, float, float]
    """Per channel, for pixels in [0, 1]; so is std."""
    std: tuple[float, float, float]

    @property
    def crop(self) -> int:
        """Pixels a side cut from the middle of the reduced image; never more than `size`."""
        return min(self.side, self.size)

    def as_dict(self) -> dict[str, Any]:
        """Return the specification as it stands in model.json."""
        return {**asdict(self), "crop": self.crop, "reduce": "bicubic", "enlarge": "bilinear"}


def store_side(size: int, typical_short_side: int) -> int:
    """Return the short side to keep: ceil(size / 0.875), but never enlarged on disk.

    0.875 is the field's usual ratio between the crop and the resized image. Images smaller than
    that are kept as they are and enlarged on the device.
    """
    return min(math.ceil(size / 0.875), typical_short_side)


def reduce(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Resize an RGB image so that its short side is `side`; return (height, width, 3) uint8.

    Raises ImageError when that would be more than MAX_PIXELS, as for a picture of 1 x 60,000.
    """
    width, height = image.size
    short = min(width, height)
    if short != side:
        scale = side / short
        target = (max(side, round(width * scale)), max(side, round(height * scale)))
        if target[0] * target[1] > MAX_PIXELS:
            raise ImageError(
                f"{width} x {height} pixels are too narrow: "
                f"enlarged to {target[0]:,} x {target[1]:,}, more than {MAX_PIXELS:,} pixels"
            )
        image = image.resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image, dtype=np.uint8)


def centre_crop(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut the middle `side` x `side` of (height, width, 3)."""
    height, width = pixels.shape[:2]
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def seen_box(width: int, height: int, spec: Preprocess) -> tuple[float, float, float, float]:
    """Return the square in the middle of an upright image that the network sees.

    Left, top, right and bottom as shares, 0 to 1, of the image's width and height.
    """
    side = min(width, height) * spec.crop / spec.side
    across, down = side / width, side / height
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def squared(image: Image.Image, spec: Preprocess) -> NDArray[np.uint8]:
    """Reduce an upright RGB image and cut its middle; return (crop, crop, 3) uint8.

    In two steps as the store does for evaluation: first the square that it keeps, then the crop.
    One step would be a pixel off where both differences of sides are odd.
    Raises ImageError for an image that is too narrow.
    """
    return centre_crop(centre_crop(reduce(image, spec.side), spec.side), spec.crop)
