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

MAX_SIDE = 4096  # pixels; the largest input of a network
CUT = 1.5  # long side / short side at which a centre crop loses a third
CUBIC = -0.75  # as in torch and ONNX; Pillow's -0.5 is less sharp, half a point worse on CIFAR
Fit = Literal["crop", "squash", "pad"]
Enlargement = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Reduction:
    """The first preprocessing step: the reduced image that the store keeps."""

    side: int
    """In pixels: the short side for 'crop', both sides for 'squash', the long side for 'pad'."""
    fit: Fit = "crop"
    """'crop': the centre square is used. 'squash': the whole image, out of proportion. 'pad': the
    whole image, with `fill` around it."""
    fill: tuple[int, int, int] = (0, 0, 0)
    bits: int = 0
    """How many bits 16-bit grey levels use; 0 to find out for each image."""


@dataclass(frozen=True)
class Preprocess:
    """Steps from an image to the network: reduce once, crop the centre, enlarge, normalise."""

    size: int
    """Side of the network's input in pixels."""
    side: int
    """Side of the image that the store keeps, in pixels; see Reduction. It is antialiased."""
    mean: tuple[float, float, float]
    """Per channel, for pixels in [0, 1]; so is std."""
    std: tuple[float, float, float]
    fit: Fit = "crop"
    """See Reduction; an image is padded with `mean`, which is zero after normalisation."""
    bits: int = 0
    """See Reduction; the number that the training images used, so that a dark image stays dark."""
    enlarge: Enlargement = "bicubic"
    """How a crop that is smaller than the network's input is enlarged; see `enlarging`."""
    mirrored: bool = False
    """Whether the network sees the mirror image too; its head gets the mean of both features."""

    @property
    def crop(self) -> int:
        """Side of the centre crop of the reduced image in pixels, at most `size`."""
        return min(self.side, self.size)

    @property
    def reduction(self) -> Reduction:
        """The first step."""
        red, green, blue = (round(255 * level) for level in self.mean)
        return Reduction(self.side, self.fit, (red, green, blue), self.bits)

    def as_dict(self) -> dict[str, Any]:
        """Return the specification for model.json, without what is rarely set, at its default."""
        fields = {**asdict(self), "crop": self.crop, "reduce": "bicubic"}
        for name in ("fit", "bits", "mirrored"):
            if fields[name] == getattr(Preprocess, name):
                del fields[name]
        return fields


def store_side(size: int, short: int, long: int, fit: Fit = "crop") -> int:
    """Return the side to store in pixels; short, long: the typical sides of the data's images.

    For 'crop' it is ceil(size / 0.875), the usual ratio between the resized image and the crop; for
    'squash' and 'pad' the whole image is used. Smaller images are stored as they are and enlarged
    on the device.
    """
    return min(math.ceil(size / 0.875), short) if fit == "crop" else min(size, long)


def reduce(image: Image.Image, how: Reduction) -> NDArray[np.uint8]:
    """Resize an RGB image to the size that the store keeps; return (height, width, 3) uint8.

    Raises ImageError if that is more than MAX_PIXELS, as for an image of 1 x 60,000.
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
    """Return the interpolation weights, (size, side), from a row of `side` pixels to `size`.

    They are those of torch's interpolate: 'bicubic' is Keys 1981, "Cubic convolution interpolation
    for digital image processing", with a = CUBIC. The edge pixels are repeated beyond the edge.
    Both methods are separable: an image x is enlarged to w @ x @ w.T.
    """
    centres = (np.arange(size)[:, None] + 0.5) * side / size - 0.5
    far = np.abs(centres - np.arange(-2, side + 2))  # (size, side + 4), in pixels of the image
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
    """Return the centre `side` x `side` of an image, (height, width, 3)."""
    height, width = pixels.shape[:2]
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def seen_box(width: int, height: int, spec: Preprocess) -> tuple[float, float, float, float]:
    """Return the part of an upright image that the network sees.

    Left, top, right and bottom as shares of the image's width and height, 0 to 1, or beyond that
    range if the image is padded.
    """
    if spec.fit == "squash":
        return 0.0, 0.0, 1.0, 1.0
    short_or_long = max if spec.fit == "pad" else min
    side = short_or_long(width, height) * spec.crop / spec.side
    across, down = side / width, side / height
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def squared(image: Image.Image, spec: Preprocess) -> NDArray[np.uint8]:
    """Reduce an upright RGB image and crop its centre; return (crop, crop, 3) uint8.

    It is cropped in two steps, as the store does for evaluation: first the square that the store
    keeps, then the crop. A single step would be a pixel off if both differences of sides are odd.
    Raises ImageError for an image that is too narrow.
    """
    return centre_crop(centre_crop(reduce(image, spec.reduction), spec.side), spec.crop)
