"""Photos that tests draw."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# What makes of an upright image one that EXIF's orientation of that number turns upright.
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def draw(label: int, number: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
    """Draw a photo-like picture whose class shows: stripes of a width and colour per class."""
    rng = np.random.default_rng([label, number])
    width, height = size
    wave = np.sin(np.arange(width) / (1.5 + label) + rng.uniform(0, 3))[None, :, None]
    colour = np.array([1.0, 0.5 - 0.5 * (label % 2), label / 4])
    pixels = 128 + 70 * wave * colour + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photos(folder: Path, counts: dict[str, int], start: int = 0) -> Path:
    """Write a folder of class folders, numbers from `start` on, and return its path."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for number in range(start, start + count):
            (folder / name / f"{number:03d}.png").write_bytes(_drawn(label, number))
    return folder


@functools.cache
def _drawn(label: int, number: int) -> bytes:
    return encoded(draw(label, number))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return an image as a file of Pillow's format `kind` holds it."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
