"""The preprocessing of an image, as one small specification that a bundle stores."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import ImageError
from .decode import MAX_PIXELS

MAX_SIDE = 4096  # pixels; no network sees more
CUT = 1.5  # times as long as short: a crop of the middle loses a third
CUBIC = -0.75  # torch's and ONNX's; -0.5, Pillow's, is less sharp, and half a point worse on CIFAR
Fit = Literal["crop", "squash", "pad"]
Enlargement = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Reduction:
    """The first step from an image to the network: what the store keeps."""

    side: int
    """Pixels: of the short side to crop, of both sides to squash, of the long side to pad."""
    fit: Fit = "crop"
    """'crop': the middle square is seen. 'squash': all of it, out of proportion. 'pad': all of it,
    with `fill` around it."""
    fill: tuple[int, int, int] = (0, 0, 0)
    bits: int = 0
    """Of grey levels in 16 bits, those that are used; 0 for what each image uses itself."""


@dataclass(frozen=True)
class Preprocess:
    """Steps from an image to the network: reduce once, crop the middle, enlarge, normalise."""

    size: int
    """Pixels a side that the network sees."""
    side: int
    """Pixels of the short side that the store keeps; see Reduction. It is antialiased."""
    mean: tuple[float, float, float]
    """Per channel, for pixels in [0, 1]; so is std."""
    std: tuple[float, float, float]
    fit: Fit = "crop"
    """See Reduction; an image is padded with `mean`, which is nothing to the network."""
    bits: int = 0
    """See Reduction; what the training images used, so that a dark image stays dark."""
    enlarge: Enlargement = "bicubic"
    """How a crop of fewer pixels than the network sees is enlarged; see `enlarging`."""

    @property
    def crop(self) -> int:
        """Pixels a side cut from the middle of the reduced image; never more than `size`."""
        return min(self.side, self.size)

    @property
    def reduction(self) -> Reduction:
        """The first step."""
        red, green, blue = (round(255 * level) for level in self.mean)
        return Reduction(self.side, self.fit, (red, green, blue), self.bits)

    def as_dict(self) -> dict[str, Any]:
        """Return the specification as in model.json, which lacks `fit` and `bits` as usual."""
        fields = {**asdict(self), "crop": self.crop, "reduce": "bicubic"}
        for name in ("fit", "bits"):
            if fields[name] == getattr(Preprocess, name):
                del fields[name]
        return fields


def store_side(size: int, short: int, long: int, fit: Fit = "crop") -> int:
    """Return the side to keep, never enlarged on disk; short, long: the data's typical sides.

    To crop it is ceil(size / 0.875), the field's usual ratio between the resized image and the
    crop; what is squashed or padded is seen whole. Images smaller than that are kept as they are
    and enlarged on the device.
    """
    return min(math.ceil(size / 0.875), short) if fit == "crop" else min(size, long)


def reduce(image: Image.Image, how: Reduction) -> NDArray[np.uint8]:
    """Resize an RGB image to what the store keeps; return (height, width, 3) uint8.

    Raises ImageError when that would be more than MAX_PIXELS, as for a picture of 1 x 60,000.
    """
    width, height = image.size
    side = how.side
    target = _target(width, height, how)
    if target != (width, height):
        if target[0] * target[1] > MAX_PIXELS:
            raise ImageError(
                f"{width} x {height} pixels are too narrow: "
                f"enlarged to {target[0]:,} x {target[1]:,}, more than {MAX_PIXELS:,} pixels"
            )
        image = image.resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if how.fit == "pad":
        padded = Image.new("RGB", (side, side), how.fill)
        padded.paste(image, ((side - target[0]) // 2, (side - target[1]) // 2))
        image = padded
    return np.asarray(image, dtype=np.uint8)


def _target(width: int, height: int, how: Reduction) -> tuple[int, int]:
    """Return the width and height that an image is resized to."""
    side = how.side
    if how.fit == "squash":
        return side, side
    if how.fit == "pad":
        scale = side / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))
    scale = side / min(width, height)
    return max(side, round(width * scale)), max(side, round(height * scale))


def enlarging(side: int, size: int, how: Enlargement) -> NDArray[np.float32]:
    """Return the weights, (size, side), by which `side` pixels in a row become `size`.

    As torch's interpolate has them: 'bicubic' is Keys 1981, "Cubic convolution interpolation for
    digital image processing", with a = CUBIC. Beyond its edge a row goes on as it ends. Both are
    separable: an image x is enlarged to w @ x @ w.T.
    """
    centres = (np.arange(size)[:, None] + 0.5) * side / size - 0.5
    far = np.abs(centres - np.arange(-2, side + 2))  # (size, side + 4), pixels of the image
    if how == "bilinear":
        weights = np.maximum(0, 1 - far)
    else:
        inner = ((CUBIC + 2) * far - (CUBIC + 3)) * far**2 + 1
        outer = ((CUBIC * far - 5 * CUBIC) * far + 8 * CUBIC) * far - 4 * CUBIC
        weights = np.where(far < 1, inner, np.where(far < 2, outer, 0))
    weights[:, 2] += weights[:, :2].sum(1)
    weights[:, -3] += weights[:, -2:].sum(1)
    inside: NDArray[np.float32] = weights[:, 2:-2].astype(np.float32)
    return inside


def centre_crop(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut the middle `side` x `side` of (height, width, 3)."""
    height, width = pixels.shape[:2]
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def seen_box(width: int, height: int, spec: Preprocess) -> tuple[float, float, float, float]:
    """Return the part of an upright image that the network sees.

    Left, top, right and bottom as shares of the image's width and height, 0 to 1; beyond where it
    is padded.
    """
    if spec.fit == "squash":
        return 0.0, 0.0, 1.0, 1.0
    short_or_long = max if spec.fit == "pad" else min
    side = short_or_long(width, height) * spec.crop / spec.side
    across, down = side / width, side / height
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def squared(image: Image.Image, spec: Preprocess) -> NDArray[np.uint8]:
    """Reduce an upright RGB image and cut its middle; return (crop, crop, 3) uint8.

    In two steps as the store does for evaluation: first the square that it keeps, then the crop.
    One step would be a pixel off where both differences of sides are odd.
    Raises ImageError for an image that is too narrow.
    """
    return centre_crop(centre_crop(reduce(image, spec.reduction), spec.side), spec.crop)
