"""Bytes to pixels: every orientation upright, every mode RGB, every fault a reason."""

from __future__ import annotations

import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from support.photos import DISPLAY_P3, SRGB, TURNED, encoded, profile_of
from thawnet.core.errors import ImageError
from thawnet.image import heic, jpeg
from thawnet.image.decode import MAX_PIXELS, decode, decode_stored, upright_rgb
from thawnet.image.decode import size as size_of
from thawnet.image.preprocess import (
    Preprocess,
    Reduction,
    centre_crop,
    reduce,
    seen_box,
    store_side,
)


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


def deep_colour(levels: list[int]) -> bytes:
    """Write a PNG of 16-bit colours, a row of pixels; Pillow writes none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    width = len(levels) // 3
    header = width.to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    row = b"\0" + np.array(levels, ">u2").tobytes()
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return data + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_is_scaled() -> None:
    image = decode(deep_colour([65535, 256 * 100, 0, 0, 0, 65535]))
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
    difference = reduce(small, Reduction(112)).astype(int) - reduce(whole, Reduction(112))
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


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_levels_of_fewer_bits_are_scaled_by_what_the_image_uses(bits: int, kind: str) -> None:
    brightest = 2**bits - 1
    pixels = np.array([[0, brightest // 2, brightest]], dtype=np.uint16)
    image, stored = decode_stored(encoded(Image.fromarray(pixels), kind))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]
    assert stored.mode == f"grey of {bits} bits in 16"


def test_colour_of_twelve_bits_is_refused_not_read_as_black() -> None:
    with pytest.raises(ImageError, match="only the lowest 12 are used; save it with 8 bits"):
        decode(deep_colour([4095, 1000, 0]))
    for dark in ([255, 75, 3], [0, 0, 0]):  # which Pillow's upper 8 bits cannot tell apart
        with pytest.raises(ImageError, match="only the lowest 12 are used"):
            decode(deep_colour(dark))


def srgb_of_p3(colour: tuple[int, int, int]) -> np.ndarray:
    """Convert by the matrices of the two spaces and sRGB's curve (IEC 61966-2-1)."""
    shares = np.array(colour) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    linear = np.linalg.inv(np.transpose(SRGB)) @ np.transpose(DISPLAY_P3) @ linear
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * curved.clip(0, 1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_display_p3_becomes_srgb(kind: str) -> None:
    if kind == "HEIF":
        heic.add_heic()
    image = Image.new("RGB", (16, 16), (180, 90, 70))
    plain = decode(encoded(image, kind)).getpixel((8, 8))
    converted = decode(encoded(image, kind, icc_profile=profile_of(*DISPLAY_P3))).getpixel((8, 8))
    assert np.abs(np.subtract(plain, (180, 90, 70))).max() <= 8
    assert np.abs(converted - srgb_of_p3((180, 90, 70))).max() <= 8
    assert np.abs(np.subtract(converted, plain)).max() >= 10


def test_transparent_and_grey_images_use_their_profiles_too() -> None:
    p3 = profile_of(*DISPLAY_P3)
    half = Image.new("RGBA", (4, 4), (180, 90, 70, 255))
    opaque = decode(encoded(half, icc_profile=p3)).getpixel((0, 0))
    assert np.abs(opaque - srgb_of_p3((180, 90, 70))).max() <= 1
    palette = Image.new("RGB", (4, 4), (180, 90, 70)).quantize(2)
    of_palette = decode(encoded(palette, icc_profile=p3)).getpixel((0, 0))
    assert np.abs(of_palette - srgb_of_p3((180, 90, 70))).max() <= 1


@pytest.mark.parametrize(
    "profile",
    [b"no profile", profile_of(*SRGB), profile_of(*SRGB)[:200], bytes(2**22 + 1)],
    ids=["rubbish", "srgb", "cut", "huge"],
)
def test_profile_that_says_nothing_changes_nothing(profile: bytes) -> None:
    for image in (Image.new("RGB", (4, 4), (180, 90, 70)), Image.new("L", (4, 4), 90)):
        without = upright_rgb(image).getpixel((0, 0))
        image.info["icc_profile"] = profile
        assert upright_rgb(image).getpixel((0, 0)) == without


def test_profiles_are_applied_in_threads() -> None:
    data = encoded(photo((60, 40)), icc_profile=profile_of(*DISPLAY_P3))
    alone = decode(data).tobytes()
    with ThreadPoolExecutor(4) as pool:
        assert all(image.tobytes() == alone for image in pool.map(decode, [data] * 100))


@pytest.mark.parametrize("size", [(64, 48), (65, 41)])
def test_heic_is_read_upright_whatever_it_is_called(size: tuple[int, int]) -> None:
    heic.add_heic()
    upright = Image.new("RGB", size, "blue")
    upright.paste((255, 0, 0), (0, 0, 32, 24))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = upright.transpose(TURNED[6])
    turned.info["exif"] = exif.tobytes()  # from which pillow-heif writes HEIC's own rotation
    data = encoded(turned, "HEIF", quality=95)
    assert b"irot" in data
    image = decode(data, 16)
    assert image.size == size
    assert np.abs(np.subtract(image.getpixel((8, 8)), (255, 0, 0))).max() <= 12
    assert decode_stored(data)[1].format == "HEIF"


def test_heic_without_its_package_is_a_sentence_with_the_pip_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heic.add_heic()
    data = encoded(Image.new("RGB", (64, 64)), "HEIF")
    heic.add_heic.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError,
        match=r"^HEIC, which is read where pillow-heif is installed: "
        r"pip install 'thawnet\[heic\]'; or save the photo as JPEG$",
    ):
        decode(data)


def test_avif_is_read() -> None:
    data = encoded(Image.new("RGB", (64, 64), (200, 30, 40)), "AVIF")
    assert np.abs(np.subtract(decode(data).getpixel((8, 8)), (200, 30, 40))).max() <= 8


@pytest.fixture(scope="module")
def vast() -> bytes:
    """Encode a photo of 200 million pixels, brighter to the right."""
    row = np.linspace(0, 255, 16320).astype(np.uint8)
    return encoded(Image.fromarray(np.broadcast_to(row, (12240, 16320))), "JPEG")


def test_jpeg_of_200_megapixels_is_decoded_at_a_fraction(vast: bytes) -> None:
    assert size_of(vast) == (16320, 12240)
    small = decode(vast, 112)
    assert small.size == (2040, 1530)
    assert abs(small.getpixel((1020, 765))[0] - 128) <= 2
    assert decode(vast).size == (8160, 6120)  # without a side: what fits
    assert decode_stored(vast)[1].size == (16320, 12240)


def test_large_jpeg_that_is_not_read_in_rows_stays_refused() -> None:
    image = Image.new("L", (9000, 9000))
    assert decode(encoded(image, "JPEG"), 96).size == (1125, 1125)
    with pytest.raises(ImageError, match=r"9000 x 9000 pixels of a progressive JPEG; .* save it"):
        decode(encoded(image, "JPEG", progressive=True), 96)
    frame = b"\xff\xd8\xff\xc0\0\x11\x08\0\1\0\1\3" + bytes(9)
    assert jpeg.streams(frame + b"\xff\xff\xda\0\x0c\3")
    assert not jpeg.streams(frame + b"\xff\xda\0\x08\1")  # a scan of each colour
    assert not jpeg.streams(frame.replace(b"\xc0", b"\xc2") + b"\xff\xda\0\x0c\3")
    assert not jpeg.streams(frame)
    assert not jpeg.streams(b"\xff\xd8\xff\xc0\0\0" * 9)


def test_jpeg_bomb_stays_refused(vast: bytes) -> None:
    at = vast.index(b"\xff\xc0") + 5
    for height, width in ((16384, 16384), (65500, 65500)):
        bomb = vast[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + vast[at + 4 :]
        with pytest.raises(ImageError, match="of a JPEG at most 256,000,000 are read"):
            decode(bomb, 96)
    assert MAX_PIXELS == 64_000_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"hello, I am text", "not an image in a known format"),
        (b"%PDF-1.4", "not an image in a known format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image in a known format"),
    ],
)
def test_what_is_not_an_image_gets_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data)


@pytest.mark.parametrize("size", [(40, 40), (80, 40), (33, 90), (500, 41), (40, 40_000)])
def test_reduced_image_has_the_short_side_asked_for(size: tuple[int, int]) -> None:
    pixels = reduce(Image.new("RGB", size), Reduction(32))
    assert min(pixels.shape[:2]) == 32
    assert centre_crop(pixels, 32).shape == (32, 32, 3)


@pytest.mark.parametrize(("size", "seen"), [((300, 100), (32, 11)), ((50, 200), (8, 32))])
def test_squashed_and_padded_images_are_seen_whole(
    size: tuple[int, int], seen: tuple[int, int]
) -> None:
    image = Image.new("RGB", size, "blue")
    image.paste((255, 0, 0), (0, 0, size[0] // 4, size[1] // 4))
    squashed = reduce(image, Reduction(32, "squash"))
    assert squashed.shape == (32, 32, 3)
    assert np.abs(squashed[:7, :7] - np.array([255, 0, 0])).max() <= 12
    assert (squashed[:, -20:] == (0, 0, 255)).all()
    padded = reduce(image, Reduction(32, "pad", (9, 8, 7)))
    left, top = ((32 - side) // 2 for side in seen)
    assert padded.shape == (32, 32, 3)
    inside = padded[top : top + seen[1], left : left + seen[0]]
    assert np.abs(inside[0, 0] - np.array([255, 0, 0])).max() <= 12
    assert (inside[-3:, -3:] == (0, 0, 255)).all()
    assert (padded == (9, 8, 7)).all(-1).sum() == 32 * 32 - seen[0] * seen[1]


def test_box_seen_is_the_middle_the_whole_or_beyond() -> None:
    spec = Preprocess(32, 32, (0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]
    assert seen_box(300, 100, spec) == pytest.approx((1 / 3, 0, 2 / 3, 1))
    assert seen_box(300, 100, replace(spec, fit="squash")) == (0, 0, 1, 1)
    assert seen_box(300, 100, replace(spec, fit="pad")) == pytest.approx((0, -1, 1, 2))


def test_store_side_leaves_room_for_the_crop_and_never_enlarges() -> None:
    assert store_side(96, 500, 600) == 110
    assert store_side(224, 500, 600) == 256
    assert store_side(96, 32, 40) == 32
    assert store_side(96, 32, 500, "pad") == store_side(96, 32, 500, "squash") == 96
    assert store_side(96, 32, 40, "pad") == 40
