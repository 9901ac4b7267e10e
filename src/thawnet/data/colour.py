"""RandAugment's colour operations and random erasing, applied to a batch on its device.

Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space".
Its rotations, shifts and shears are left out: views.py rotates and shifts in one affine resample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .device import sent

Operation = Callable[[torch.Tensor, float], torch.Tensor]


def _tv(name: str) -> Any:
    # Imported here: it takes a second, and most recipes use no colour operations.
    from torchvision.transforms.v2 import functional

    return getattr(functional, name)


def _enhance(name: str, sign: int) -> Operation:
    return lambda pixels, magnitude: _tv(name)(pixels, 1 + sign * 0.9 * magnitude / 30)


# Each maps uint8 pixels and a magnitude, 0 to 30, to uint8 pixels; the ranges are those of
# torchvision's RandAugment. Number 0 is the identity.
OPERATIONS: tuple[Operation, ...] = (
    lambda pixels, magnitude: pixels,
    lambda pixels, magnitude: _tv("autocontrast")(pixels),
    lambda pixels, magnitude: _tv("equalize")(pixels),
    lambda pixels, magnitude: _tv("posterize")(pixels, 8 - round(magnitude * 4 / 30)),
    lambda pixels, magnitude: _tv("solarize")(pixels, 255 - 255 * magnitude / 30),
    *(_enhance("adjust_brightness", sign) for sign in (1, -1)),
    *(_enhance("adjust_contrast", sign) for sign in (1, -1)),
    *(_enhance("adjust_saturation", sign) for sign in (1, -1)),
    *(_enhance("adjust_sharpness", sign) for sign in (1, -1)),
)


def recolour(pixels: torch.Tensor, operations: NDArray[np.int64], magnitude: float) -> torch.Tensor:
    """Apply each image's colour operations in order.

    pixels: (n, 3, h, w) float32, 0..255, returned rounded. operations: (n, k), indices into
    OPERATIONS. Images with the same operation are processed together.
    """
    whole = pixels.round().clamp(0, 255).to(torch.uint8)
    for turn in operations.T:
        for number in np.unique(turn):
            if number:
                rows = sent(np.flatnonzero(turn == number), whole.device)
                whole[rows] = OPERATIONS[number](whole[rows], magnitude)
    return whole.float()


def erase(pixels: torch.Tensor, rectangles: torch.Tensor) -> torch.Tensor:
    """Set a rectangle of each image to 0, the mean colour after normalisation.

    pixels: (n, 3, h, w). rectangles: (n, 4) on the same device; left, top, right and
    bottom as shares of the side.
    """
    height, width = pixels.shape[-2:]
    x = (torch.arange(width, device=pixels.device) + 0.5) / width
    y = (torch.arange(height, device=pixels.device) + 0.5) / height
    left, top, right, bottom = rectangles.T[:, :, None]
    inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
    return pixels.masked_fill(inside[:, None], 0.0)
