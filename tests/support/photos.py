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


def heap(folder: Path, *names: str) -> Path:
    """Write images of these names, without class folders."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(draw(7, number)))
    return folder


def profile_of(*colorants: tuple[float, float, float]) -> bytes:
    """Return an ICC profile of a display whose red, green and blue are these XYZ, under D50.

    Its curve is that of sRGB (ICC.1:2022, parametricCurveType 3).
    """

    def fixed(*values: float) -> bytes:
        return b"".join(round(value * 65536).to_bytes(4, "big", signed=True) for value in values)

    curve = b"para" + bytes(4) + b"\0\3\0\0"
    curve += fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    xyz = [b"XYZ " + bytes(4) + fixed(*colour) for colour in colorants]
    white = b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249)
    name = b"desc" + bytes(4) + (2).to_bytes(4, "big") + b"p\0" + bytes(78)
    tags = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), xyz, strict=True))
    tags |= {b"wtpt": white, b"desc": name + bytes(-len(name) % 4)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, content, start = b"", b"", 132 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + (start + len(content)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        content += value
    head = (start + len(content)).to_bytes(4, "big") + bytes(4) + b"\x04\0\0\0mntrRGB XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48)
    return head + len(tags).to_bytes(4, "big") + table + content


DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139))
