"""Views: seeded, augmented images, made on the device by one affine resample.

A view depends on (seed, epoch, position in the part), never on the batch it falls into.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..image.preprocess import Preprocess, enlarging
from .augment import Augment
from .colour import OPERATIONS, erase, recolour
from .device import sent, squares_on
from .store import ImageStore

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Views:
    """One view of every image of a part; each field has a row per image."""

    mirror: Floats
    """1 or -1."""
    angle: Floats
    """Radians."""
    width: Floats
    """Share of the image's width that is shown; `height` likewise."""
    height: Floats
    shift_x: Floats
    """In half sides, so 1 moves the middle to the edge."""
    shift_y: Floats
    along: Floats
    """See ImageStore.batch."""
    operations: NDArray[np.int64]
    """(n, k), indices into colour.OPERATIONS."""
    erased: Floats
    """(n, 4), see colour.erase."""

    def at(self, positions: NDArray[np.int64]) -> Views:
        """Return the views of some images, in that order."""
        return Views(*(getattr(self, name)[positions] for name in self.__dataclass_fields__))

    @cached_property
    def moves(self) -> bool:
        """True if any image is rotated, scaled or shifted, and not only mirrored."""
        return bool(
            self.angle.any()
            or (self.width != 1).any()
            or (self.height != 1).any()
            or self.shift_x.any()
            or self.shift_y.any()
        )


def plain_views(count: int, augment: Augment, mirror: bool = False) -> Views:
    """Return the view used for evaluation: the middle crop as it is, or mirrored."""
    zero, one = np.zeros(count, np.float32), np.ones(count, np.float32)
    return Views(
        mirror=-one if mirror else one,
        angle=zero,
        width=one,
        height=one,
        shift_x=zero,
        shift_y=zero,
        along=zero + np.float32(0.5),
        operations=np.zeros((count, augment.randaugment), np.int64),
        erased=np.zeros((count, 4), np.float32),
    )


def random_views(count: int, augment: Augment, seed: int, epoch: int) -> Views:
    """Draw one view of each of `count` images for one epoch."""
    rng = np.random.default_rng([seed, epoch, 0x71E5])

    def uniform(limit: float | Floats) -> Floats:
        return rng.uniform(-limit, limit, count).astype(np.float32)

    mirror = np.where(rng.random(count) < 0.5, -1, 1) if augment.flip else np.ones(count)
    angle = uniform(np.deg2rad(augment.rotate))
    scale = np.exp(uniform(np.log1p(augment.zoom)))
    shift_x, shift_y = uniform(2 * augment.shift), uniform(2 * augment.shift)
    along = uniform(0.5) + np.float32(0.5)
    width, height = scale, scale
    if augment.crop < 1:
        # A share of the area at an aspect of 3/4 to 4/3, anywhere inside the image.
        area = rng.uniform(augment.crop, 1, count)
        aspect = np.exp(rng.uniform(-np.log(4 / 3), np.log(4 / 3), count))
        inner_width = np.minimum(1, np.sqrt(area * aspect)).astype(np.float32)
        inner_height = np.minimum(1, np.sqrt(area / aspect)).astype(np.float32)
        width, height = width * inner_width, height * inner_height
        shift_x, shift_y = shift_x + uniform(1 - inner_width), shift_y + uniform(1 - inner_height)
    return Views(
        mirror=mirror.astype(np.float32),
        angle=angle,
        width=width,
        height=height,
        shift_x=shift_x,
        shift_y=shift_y,
        along=along,
        operations=rng.integers(0, len(OPERATIONS), (count, augment.randaugment)),
        erased=_rectangles(rng, count, augment.erase),
    )


def _rectangles(rng: np.random.Generator, count: int, share: float) -> Floats:
    """Draw rectangles of 2 to 33 % of the area, aspect 0.3 to 3.3, in a share of the images."""
    if not share:
        return np.zeros((count, 4), np.float32)
    area, aspect = rng.uniform(0.02, 0.33, count), np.exp(rng.uniform(-1.2, 1.2, count))
    sides = np.minimum(1, np.sqrt(np.stack([area * aspect, area / aspect], 1)))  # (n, 2)
    first = rng.uniform(0, 1 - sides)
    drawn = np.concatenate([first, first + sides], 1) * (rng.random(count) < share)[:, None]
    return drawn.astype(np.float32)


def undrawn_views(flip: bool) -> int:
    """Return the number of cached views that are not random: plain and, if allowed, mirrored."""
    return 2 if flip else 1


def fixed_views(count: int, augment: Augment, number: int) -> Views:
    """Return cached view `number`: 0 plain, 1 mirrored (where allowed), then random draws.

    Independent of the run's seed, so that runs share them.
    """
    if number < undrawn_views(augment.flip):
        return plain_views(count, augment, mirror=number == 1)
    return random_views(count, augment, seed=0xCAC4E, epoch=number)


def render(
    images: ImageStore,
    positions: NDArray[np.int64],
    views: Views,
    spec: Preprocess,
    augment: Augment,
    device: torch.device,
) -> torch.Tensor:
    """Return normalised network input, (n, 3, size, size) float32, for views of `positions`.

    `views` holds one view per position, in the same order.
    """
    resident = squares_on(images, device)
    if resident is None:
        raw = sent(images.batch(positions, views.along), device)
    else:
        raw = resident[sent(images.rows[positions], device)]
    # Contiguous planes: enlarging 256 images then takes 5.5 ms instead of 14 ms.
    pixels = raw.permute(0, 3, 1, 2).float().contiguous()  # (n, 3, side, side), 0..255
    recoloured = bool(views.operations.any())
    if not recoloured:
        # After the enlargement it would give the same, on many more pixels.
        pixels = _normalised(pixels, spec)
    if spec.side < spec.size:
        pixels = _enlarge(pixels, spec)
    if not views.moves:
        # Only mirrored: a crop gives the same numbers in a tenth of the time.
        inset = (pixels.shape[-1] - spec.size) // 2
        pixels = pixels[..., inset : inset + spec.size, inset : inset + spec.size]
        mirrored = views.mirror < 0
        if mirrored.any():
            chosen = sent(mirrored, device)[:, None, None, None]
            pixels = torch.where(chosen, pixels.flip(-1), pixels)
    else:
        pixels = _affine(pixels, views, spec)
    if recoloured:
        pixels = recolour(pixels, views.operations, augment.magnitude)
        pixels = _normalised(pixels, spec)
    return erase(pixels, sent(views.erased, device)) if views.erased.any() else pixels


def _normalised(pixels: torch.Tensor, spec: Preprocess) -> torch.Tensor:
    """Return pixels in 0..255, scaled to [0, 1] and normalised by each channel's mean and std."""
    mean, std = (
        sent(np.array(values, np.float32), pixels.device).view(1, 3, 1, 1)
        for values in (spec.mean, spec.std)
    )
    return (pixels / 255 - mean) / std


def _enlarge(pixels: torch.Tensor, spec: Preprocess) -> torch.Tensor:
    """Resample squares to the network's size."""
    # Mostly zeros, yet six times as fast as F.interpolate (32 to 128 px, one core).
    down, across = _weights(spec, pixels.device)
    return down @ pixels @ across


@lru_cache(maxsize=4)
def _weights(spec: Preprocess, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `enlarging` and its transpose on a device; cached, as a batch may be of two images."""
    weights = enlarging(spec.side, spec.size, spec.enlarge)
    # The cache outlives the inference mode that the first call may be made in.
    with torch.inference_mode(False):
        return sent(weights, device), sent(np.ascontiguousarray(weights.T), device)


def _affine(pixels: torch.Tensor, views: Views, spec: Preprocess) -> torch.Tensor:
    """Apply the affine maps of views to squares and cut the middle to the network's size.

    Edges are reflected. Interpolates as `_enlarge` does: evaluation sees sharp images, for which
    training on blurred ones is worse.
    """
    share = spec.size / pixels.shape[-1]
    cos, sin = np.cos(views.angle) * share, np.sin(views.angle) * share
    # The grid maps output to input, in [-1, 1].
    rows: list[list[Any]] = [
        [cos * views.width * views.mirror, -sin * views.height * views.mirror, views.shift_x],
        [sin * views.width, cos * views.height, views.shift_y],
    ]
    theta = np.stack([np.stack(row, -1) for row in rows], 1).astype(np.float32)
    shape = [len(pixels), 3, spec.size, spec.size]
    grid = F.affine_grid(sent(theta, pixels.device), shape, align_corners=False)
    return F.grid_sample(
        pixels, grid, mode=spec.enlarge, padding_mode="reflection", align_corners=False
    )
