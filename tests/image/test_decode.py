"""Bytes to pixels: every orientation upright, every mode RGB, every fault a reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from thawnet.errors import ImageError
from thawnet.image import decode as module
from thawnet.image.decode import decode
from thawnet.image.preprocess import centre_crop, reduce, store_side


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.new("RGB", (24, 16), "blue")
    upright.paste((255, 0, 0), (0, 0, 12, 8))  # the top left quarter is red
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(turned, exif=exif))
    assert image.size == (24, 16)
    assert image.getpixel((3, 3)) == (255, 0, 0)
    assert image.getpixel((20, 12)) == (0, 0, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert decode(encoded(Image.new(mode, (5, 4)))).mode == "RGB"


def test_cmyk_becomes_rgb() -> None:
    assert decode(encoded(Image.new("CMYK", (5, 4)), "JPEG")).mode == "RGB"


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    pixels = np.array([[0, 256 * 100, 65535]], dtype=np.uint16)
    image = decode(encoded(Image.fromarray(pixels)))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]


def test_transparency_is_laid_over_white() -> None:
    assert decode(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))).getpixel((0, 0)) == (255,) * 3


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"hello, I am text", "not an image in a known format"),
        (b"%PDF-1.4", "not an image in a known format"),
    ],
)
def test_what_is_not_an_image_gets_a_reason(data: bytes, told: str) -> None:
    with pytest.raises(ImageError, match=told):
        decode(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_truncated_image_is_damaged_never_half_grey(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for tenth in range(1, 8):
        with pytest.raises(ImageError):
            decode(data[: len(data) * tenth // 10])


def test_too_many_pixels_is_said_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 99)
    with pytest.raises(ImageError, match="10 x 10 pixels would take 0 MB; at most"):
        decode(encoded(Image.new("RGB", (10, 10))))


@pytest.mark.parametrize("size", [(40, 40), (80, 40), (33, 90), (500, 41), (40, 40_000)])
def test_reduced_image_has_the_short_side_asked_for(size: tuple[int, int]) -> None:
    pixels = reduce(Image.new("RGB", size), 32)
    assert min(pixels.shape[:2]) == 32
    assert centre_crop(pixels, 32).shape == (32, 32, 3)


def test_store_side_leaves_room_for_the_crop_and_never_enlarges() -> None:
    assert store_side(96, 500) == 110
    assert store_side(224, 500) == 256
    assert store_side(96, 32) == 32
