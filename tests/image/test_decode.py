"""Bytes to pixels: every orientation upright, every mode RGB, every fault a reason."""

from __future__ import annotations

import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from support.photos import TURNED, encoded
from thawnet.core.errors import ImageError
from thawnet.image.decode import decode
from thawnet.image.decode import size as size_of
from thawnet.image.preprocess import centre_crop, reduce, store_side


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.new("RGB", (24, 16), "blue")
    upright.paste((255, 0, 0), (0, 0, 12, 8))  # the top left quarter is red
    turned = upright.transpose(TURNED[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(turned, exif=exif))
    assert image.size == (24, 16)
    assert image.getpixel((3, 3)) == (255, 0, 0)
    assert image.getpixel((20, 12)) == (0, 0, 255)


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40))
    for image in (red.convert("CMYK"), red):
        colour = decode(encoded(image, "JPEG", quality=95)).getpixel((8, 8))
        assert np.abs(np.subtract(colour, (200, 30, 40))).max() <= 6


@pytest.mark.parametrize("orientation", [1, 6])
def test_palette_grey_and_transparent_pictures_keep_their_colours(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert decode(encoded(palette, exif=exif)).getpixel((0, 0)) == (10, 200, 30)
    assert decode(encoded(palette, "GIF")).getpixel((0, 0)) == (10, 200, 30)
    assert decode(encoded(palette, transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert decode(encoded(Image.new("L", (4, 4), 90), exif=exif)).getpixel((0, 0)) == (90, 90, 90)
    half = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    assert decode(encoded(half, exif=exif)).getpixel((0, 0)) == (227, 127, 127)


def test_sixteen_bit_colour_is_scaled() -> None:
    # Pillow writes no 16-bit colour: one by hand, 2 x 1 pixels.
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    header = (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    row = b"\0" + np.array([65535, 256 * 100, 0, 0, 0, 65535], ">u2").tobytes()
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    image = decode(data)
    assert (image.getpixel((0, 0)), image.getpixel((1, 0))) == ((255, 100, 0), (0, 0, 255))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(np.subtract(decode(data).getpixel((4, 4)), (255, 0, 0))).max() <= 3


def test_damaged_exif_does_not_cost_the_picture() -> None:
    for exif in (
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0xx",
    ):
        assert decode(encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).size == (8, 4)


def photo(size: tuple[int, int]) -> Image.Image:
    """Draw a picture with edges and fine texture, as a photo has."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
    noisy = pixels + rng.integers(-10, 11, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpeg_is_decoded_small_and_looks_the_same(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo((1600, 1200)), "JPEG", quality=90, exif=exif)
    small, whole = decode(data, 112), decode(data)
    assert sorted(whole.size) == [1200, 1600]
    assert sorted(small.size) == [300, 400]
    assert (small.width > small.height) == (whole.width > whole.height)
    difference = reduce(small, 112).astype(int) - reduce(whole, 112)
    assert np.abs(difference).mean() < 1
    assert np.abs(difference).max() <= 8


def test_reduction_never_starts_below_twice_the_side() -> None:
    for short in (40, 223, 224, 447, 448, 895, 896, 2000):
        data = encoded(Image.new("RGB", (short, short + 9)), "JPEG")
        assert min(decode(data, 112).size) >= min(short, 224)


def test_only_jpeg_is_decoded_small() -> None:
    assert decode(encoded(Image.new("RGB", (900, 900))), 10).size == (900, 900)


def test_warnings_stay_as_they_were_after_decoding_in_threads() -> None:
    before = list(warnings.filters)
    data = encoded(photo((300, 200)), "JPEG")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode, [data] * 200))
    assert warnings.filters == before


def test_size_is_read_from_the_header() -> None:
    data = encoded(Image.new("RGB", (30, 20)), "JPEG")
    assert size_of(data) == (30, 20)
    with pytest.raises(ImageError, match="not an image in a known format"):
        size_of(b"text")


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    pixels = np.array([[0, 256 * 100, 65535]], dtype=np.uint16)
    image = decode(encoded(Image.fromarray(pixels)))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]
    level = encoded(Image.fromarray(np.full((4, 4), 40_000, np.uint16)), transparency=65535)
    assert decode(level).getpixel((0, 0)) == (156, 156, 156)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"hello, I am text", "not an image in a known format"),
        (b"%PDF-1.4", "not an image in a known format"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "^HEIC, which is not read here; save .* as JPEG$"),
    ],
)
def test_what_is_not_an_image_gets_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data)


@pytest.mark.parametrize("size", [(40, 40), (80, 40), (33, 90), (500, 41), (40, 40_000)])
def test_reduced_image_has_the_short_side_asked_for(size: tuple[int, int]) -> None:
    pixels = reduce(Image.new("RGB", size), 32)
    assert min(pixels.shape[:2]) == 32
    assert centre_crop(pixels, 32).shape == (32, 32, 3)


def test_store_side_leaves_room_for_the_crop_and_never_enlarges() -> None:
    assert store_side(96, 500) == 110
    assert store_side(224, 500) == 256
    assert store_side(96, 32) == 32
