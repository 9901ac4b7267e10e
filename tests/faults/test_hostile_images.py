"""Images made to hurt, in every format that is read: a reason each, and no more than their share.

Colours, EXIF and animations: tests/image/test_decode.py.
"""

from __future__ import annotations

import contextlib
import re
import struct
import tracemalloc
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import thawnet
from support.photos import TURNED, draw, encoded
from thawnet.cli import main
from thawnet.core.errors import ImageError
from thawnet.data.sources.open import open_source
from thawnet.data.store import open_store
from thawnet.evaluation import evaluate
from thawnet.image.decode import FORMATS, decode, decode_stored
from thawnet.image.heic import add_heic
from thawnet.image.preprocess import Reduction, reduce, squared

MODES = (
    "1",
    "L",
    "LA",
    "P",
    "RGB",
    "RGBA",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "I;16",
    "F",
)


def noise(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.merge("LAB", Image.fromarray(pixels).split())
    if mode == "I":  # as Pillow reads a PPM of 16 bits
        return Image.fromarray(pixels[..., 0].astype(np.int32) * 257)
    return Image.fromarray(pixels).convert(mode)


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">L", zlib.crc32(kind + content))
    return struct.pack(">L", len(content)) + kind + content + check


def png(width: int, height: int) -> bytes:
    header = struct.pack(">2L5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9)))


def jpeg(width: int, height: int) -> bytes:
    content = encoded(noise(), "JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">2H", height, width) + content[at + 4 :]


def gif(width: int, height: int) -> bytes:
    content = encoded(noise("P"), "GIF")
    return content[:6] + struct.pack("<2H", width, height) + content[10:]


def bmp(width: int, height: int) -> bytes:
    content = encoded(noise(), "BMP")
    return content[:18] + struct.pack("<2l", width, height) + content[26:]


def tiff(width: int, height: int) -> bytes:
    content = encoded(noise(), "TIFF")
    for tag, value in ((256, width), (257, height)):
        entry = struct.pack("<2HL", tag, 4, 1)  # 4: a number of 32 bits
        at = content.index(entry)
        content = content[: at + 8] + struct.pack("<L", value) + content[at + 12 :]
    return content


def webp(width: int, height: int) -> bytes:
    content = encoded(noise("RGBA"), "WEBP", icc_profile=b"x")  # extended: VP8X
    at = content.index(b"VP8X") + 12
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return content[:at] + sides + content[at + 6 :]


def ppm(width: int, height: int) -> bytes:
    return b"P6 %d %d 255\n" % (width, height)


def boxes(kind: str, width: int, height: int) -> bytes:
    content = encoded(noise(), kind)
    at = content.index(b"ispe") + 8
    return content[:at] + struct.pack(">2L", width, height) + content[at + 8 :]


KINDS = (*FORMATS, add_heic())
BOMBS = {
    "PNG": png,
    "JPEG": jpeg,
    "GIF": gif,
    "BMP": bmp,
    "TIFF": tiff,
    "WEBP": webp,
    "PPM": ppm,
    **{kind: partial(boxes, kind) for kind in ("AVIF", "HEIF")},
}


@pytest.mark.parametrize("kind", KINDS)
def test_bomb_of_every_format_is_refused_in_bytes_before_its_pixels_take_any(kind: str) -> None:
    with contextlib.suppress(ImageError):
        decode(BOMBS[kind](9000, 9000))  # the format's plugin is imported
    most = "; at most 192 MB (64,000,000 pixels) are decoded"
    messages = {60_000: f"far too much memory{most}", 12_000: f"pixels would take 432 MB{most}"}
    if kind == "JPEG":  # which is decoded at a fraction of its size
        few = "pixels; of a JPEG at most 256,000,000 are read"
        messages = {60_000: f"60000 x 60000 {few}", 17_000: f"17000 x 17000 {few}"}
    for side, message in messages.items():
        content = BOMBS[kind](side, side)
        tracemalloc.start()
        try:
            with pytest.raises(ImageError) as caught:
                decode(content)
            assert tracemalloc.get_traced_memory()[1] < 1e6
        finally:
            tracemalloc.stop()
        if kind in ("WEBP", "AVIF", "HEIF"):  # whose libraries compare picture and header
            continue
        assert str(caught.value).endswith(message)


# A GIF's pictures need not fill it, libjpeg pads with grey what ends as a JPEG has to, and libavif
# enlarges.
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"GIF", "JPEG", "AVIF"}))
def test_header_that_promises_more_than_follows_is_damaged(kind: str) -> None:
    with pytest.raises(ImageError):
        decode(BOMBS[kind](6000, 6000))


@pytest.mark.parametrize("kind", KINDS)
def test_image_cut_at_any_tenth_has_a_reason(kind: str) -> None:
    mode = "P" if kind == "GIF" else "RGB"
    content = encoded(noise(mode), kind)
    for tenth in range(10):
        for least_side in (None, 10):
            with pytest.raises(ImageError):
                decode(content[: len(content) * tenth // 10], least_side)


@pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")  # of pillow-heif
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_that_a_format_holds_is_read(kind: str, mode: str) -> None:
    try:
        content = encoded(noise(mode), kind)
    except (OSError, ValueError, KeyError):
        return  # which no file can hold
    if (kind, mode) in (("TIFF", "I"), ("TIFF", "F"), ("PPM", "F")):
        with pytest.raises(ImageError, match="grey levels in 32 bits, whose white level is not"):
            decode(content)
        return
    image = decode(content)
    assert (image.mode, image.size) == ("RGB", (60, 40))
    assert np.asarray(image).std() > 10  # not black, not white
    assert decode_stored(content)[1].format == kind


@pytest.mark.parametrize("profile", [b"", b"x", b"\xff" * 5000])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colour_profile_changes_no_pixel_and_a_damaged_one_hurts_none(
    kind: str, profile: bytes
) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = np.asarray(decode(encoded(noise(), kind)))
    for each in (profile, srgb):
        assert (np.asarray(decode(encoded(noise(), kind, icc_profile=each))) == plain).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50_000), (50_000, 1), (1, 2)])
def test_smallest_and_thinnest_images_are_read_or_have_a_reason(
    bundle: Path, size: tuple[int, int]
) -> None:
    content = encoded(Image.new("RGB", size, "red"))
    spec = thawnet.load(bundle).preprocess
    (answer,) = thawnet.load(bundle).stream([content])
    if max(size) > 2:
        assert reduce(decode(content), Reduction(32)).shape[:2] in (
            (32, 1_600_000),
            (1_600_000, 32),
        )
        assert isinstance(answer, ImageError)
        assert re.search(r" 50000 pixels| 1 pixels are too narrow: enlarged to", str(answer))
        return
    assert not isinstance(answer, ImageError)
    assert (squared(decode(content), spec) == (255, 0, 0)).all()


@pytest.mark.parametrize("head", [b"zTXtk\0\0", b"iCCPk\0\0", b"iTXtk\0\1\0\0\0"])
def test_text_that_unpacks_without_end_is_refused_or_left_out(head: bytes) -> None:
    bomb = chunk(head[:4], head[4:] + zlib.compress(bytes(100_000_000)))
    whole = encoded(Image.new("RGB", (4, 4)))
    tracemalloc.start()
    try:
        with contextlib.suppress(ImageError):
            decode(whole[:33] + bomb + whole[33:])
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_class_is_the_same_in_evaluation_predict_and_python_however_a_photo_lies(
    bundle: Path, tmp_path: Path, orientation: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = [draw(label, 3, (64, 48)) for label in range(3)]
    for name, image in zip("abc", upright, strict=True):
        turned = image.transpose(TURNED[orientation]) if orientation > 1 else image
        (folder / name).mkdir(parents=True)
        turned.save(folder / name / "1.png", exif=exif)
    model = thawnet.load(bundle)
    expected = [each.classes[0] for each in model.predict(upright)]
    paths = [folder / name / "1.png" for name in "abc"]
    assert [each.classes[0] for each in model.predict(paths)] == expected
    assert main(["predict", *map(str, paths), "--model", str(bundle), "--csv", "--top-k", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split(",")[2] for row in rows] == expected
    # What training measures on: the store's pixels.
    source = open_source(str(folder))
    store = open_store(source.open_part("train"), model.preprocess.reduction, lambda done: None, 1)
    inset = (model.preprocess.side - model.preprocess.crop) // 2
    middle = slice(inset, inset + model.preprocess.crop)
    pixels = store.batch(np.arange(3))[:, middle, middle]
    assert [model.classes[row] for row in model.all_logits(pixels).argmax(1)] == expected
    right = sum(name == answer for name, answer in zip("abc", expected, strict=True))
    assert evaluate(model, str(folder)).accuracy == pytest.approx(right / 3)
