"""The audit: every copy, leak and damaged file is found, and nothing else is called one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

import thawnet
from support.photos import draw
from support.shared import CIFAR, FLOWERS
from thawnet.audit.audit import inspect
from thawnet.audit.contents import Audit
from thawnet.audit.duplicates import connect, find_near, find_plain, thumbnail

Photos = Callable[..., Path]


def scene(number: int, size: tuple[int, int] = (128, 96)) -> Image.Image:
    """Draw soft blobs of many sizes, as unlike each other as photos are."""
    rng = np.random.default_rng(number)
    pixels = np.zeros((size[1], size[0], 3))
    for cells in (3, 6, 12, 24):
        layer = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += np.asarray(layer.resize(size, Image.Resampling.BICUBIC)) / 4
    return Image.fromarray(pixels.astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 40) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def kinds(audit: Audit) -> dict[str, str]:
    return {finding.kind: finding.what for finding in audit.findings}


def near(images: list[Image.Image], mirrored: bool = True) -> set[tuple[int, int]]:
    thumbnails = np.stack([thumbnail(image) for image in images])
    found = find_near(thumbnails, np.arange(len(images)), mirrored, lambda done: None)
    return {(low, high) for low, high in found.rows.tolist()}


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """Write a data set with a copy of each kind: one each, and pictures that are unlike."""
    root = tmp_path / "leaky"
    for number in range(60):
        label = "ab"[number % 2]
        save(scene(number), root / "train" / label / f"{number:03d}.png")
    for number in range(100, 120):
        save(scene(number), root / "test" / "ab"[number % 2] / f"{number}.png")
    save(scene(0), root / "test" / "b" / "other-class.png")
    save(jpeg(scene(2)), root / "test" / "a" / "stored-again.jpg")
    save(scene(4), root / "train" / "b" / "two-classes.bmp")
    save(ImageOps.mirror(scene(6)), root / "train" / "a" / "mirrored.png")
    return root


def test_copies_are_found_and_ordered_worst_first(leaky: Path) -> None:
    audit = inspect(str(leaky))
    found = [
        (group.scope, group.exact, group.mirrored, [picture.name for picture in group.pictures])
        for group in audit.groups
    ]
    assert found == [
        ("parts and classes", True, False, ["train/a/000.png", "test/b/other-class.png"]),
        ("parts", False, False, ["train/a/002.png", "test/a/stored-again.jpg"]),
        ("classes", True, False, ["train/a/004.png", "train/b/two-classes.bmp"]),
        ("one class", False, True, ["train/a/006.png", "train/a/mirrored.png"]),
    ]
    told = kinds(audit)
    assert told["test-leak"].startswith("2 test images of 22 (9.1 %) are in train too: ")
    assert "1 pixel for pixel, 1 nearly the same; 1 under another class" in told["test-leak"]
    assert told["label-conflict"].startswith("1 picture is filed under more than one class")
    assert list(told)[:3] == ["test-leak", "label-conflict", "copies"]


def test_audit_is_the_same_every_time_and_json_holds_all_of_it(leaky: Path) -> None:
    audit = inspect(str(leaky))
    assert inspect(str(leaky)) == audit
    assert thawnet.inspect is inspect
    read = json.loads(json.dumps(audit.as_dict()))
    assert read["parts"][0]["counts"] == {"a": 31, "b": 31}
    assert read["groups"][0]["pictures"][1] == {
        "part": "test",
        "label": "b",
        "name": "test/b/other-class.png",
    }


@pytest.mark.parametrize(
    "change",
    [
        jpeg,
        lambda image: image.resize((53, 61), Image.Resampling.LANCZOS),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: ImageEnhance.Brightness(image).enhance(0.6),
        lambda image: ImageEnhance.Contrast(image).enhance(1.4),
        lambda image: image.crop((2, 2, 126, 94)),
        lambda image: ImageOps.mirror(image),
        lambda image: jpeg(ImageOps.mirror(image).resize((64, 48))),
    ],
    ids=["stored-again", "resized", "grey", "dark", "contrast", "cropped", "mirrored", "both"],
)
def test_changed_copy_is_found(change: Callable[[Image.Image], Image.Image]) -> None:
    images = [scene(number) for number in range(40)]
    assert near([*images, change(images[7])]) == {(7, 40)}


def test_mirror_image_of_a_digit_is_another_picture() -> None:
    assert near([scene(1), ImageOps.mirror(scene(1))], mirrored=False) == set()


def test_different_photos_of_one_kind_are_not_copies() -> None:
    stripes = [draw(1, number) for number in range(100)]
    horizons = []
    for number in range(100):
        rng = np.random.default_rng(number)
        pixels = np.full((64, 64, 3), 210.0)
        pixels[int(rng.integers(28, 36)) :] = rng.integers(40, 90)
        noise = rng.normal(0, 6, pixels.shape)
        horizons.append(Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)))
    assert near([*stripes, *horizons]) == set()


def test_hashing_finds_what_comparing_every_pair_finds() -> None:
    originals = [scene(number) for number in range(150)]
    copies = [jpeg(image.crop((1, 2, 127, 95)), 20) for image in originals]
    found = near([*originals, *copies])
    expected = {(number, number + 150) for number in range(150)}
    assert found <= expected
    assert len(found) >= 0.97 * len(expected)


def test_crowd_of_look_alikes_is_one_group_without_comparing_all_pairs() -> None:
    rng = np.random.default_rng(0)
    base = thumbnail(scene(3)).astype(np.float32)
    crowd = (base + rng.normal(0, 1, (1000, *base.shape))).clip(0, 255).astype(np.uint8)
    found = find_near(crowd, np.arange(1000), False, lambda done: None)
    assert [len(group) for group in connect(1000, found.rows.tolist())] == [1000]
    assert len(found.rows) < 0.2 * 1000 * 1000 / 2


def test_plain_images_are_named_and_never_copies(photos: Photos) -> None:
    folder = photos({"a": 6, "b": 6})
    for number, grey in enumerate((0, 90, 91, 255)):
        save(Image.new("RGB", (40, 40), (grey, grey, grey)), folder / "b" / f"plain{number}.png")
    audit = inspect(str(folder))
    assert audit.parts[0].plain == tuple(f"b/plain{number}.png" for number in range(4))
    assert audit.groups == ()
    assert find_plain(np.zeros((0, 32, 32), dtype=np.uint8)).tolist() == []


def test_damaged_files_are_named_with_the_reason(photos: Photos) -> None:
    folder = photos({"a": 6, "b": 6})
    (folder / "a" / "empty.png").touch()
    whole = (folder / "b" / "000.png").read_bytes()
    (folder / "b" / "half.png").write_bytes(whole[: len(whole) // 2])
    part = inspect(str(folder)).parts[0]
    assert (part.images, part.counts) == (14, {"a": 6, "b": 6})
    assert [name for name, _ in part.broken] == ["a/empty.png", "b/half.png"]
    assert part.broken[0][1] == "the file is empty (0 bytes)"
    assert part.broken[1][1].startswith("damaged: ")


def test_data_in_which_nothing_can_be_read_is_reported_all_the_same(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "d" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "d" / label / f"{number}.jpg").write_text("no image")
    audit = inspect(str(tmp_path / "d"))
    assert len(audit.parts[0].broken) == 6
    assert kinds(audit)["broken"].startswith("6 images cannot be read: a/0.jpg (not an image")


def test_how_images_are_stored_is_counted(photos: Photos) -> None:
    folder = photos({"a": 5, "b": 5})
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    scene(1, (120, 80)).save(folder / "a" / "turned.jpg", exif=exif)
    frames = [scene(2, (50, 50)), scene(3, (50, 50))]
    frames[0].save(folder / "a" / "moving.gif", save_all=True, append_images=frames[1:])
    scene(4, (200, 100)).convert("L").save(folder / "b" / "grey.png")
    part = inspect(str(folder), size=64).parts[0]
    assert part.formats == {"PNG": 11, "JPEG": 1, "GIF": 1}
    assert part.modes == {"RGB": 11, "P": 1, "L": 1}
    assert part.turned == 1
    assert part.animated == ("a/moving.gif",)
    assert part.width == (40, 40, 200)
    assert part.height == (40, 40, 120)
    assert part.smaller == 11
    assert part.stored_bytes == sum(file.stat().st_size for file in folder.glob("*/*"))


def test_uneven_small_and_missing_classes_are_told_with_what_to_do(
    photos: Photos, tmp_path: Path
) -> None:
    photos({"many": 60, "some": 19, "few": 3}, "d/train")
    photos({"many": 2, "some": 1, "few": 0}, "d/test", start=70)
    audit = inspect(str(tmp_path / "d"))
    told = kinds(audit)
    assert told["test-misses-classes"] == "The test part has no image of few."
    assert (
        "2 classes have fewer than 20 images in the train part: few (3), some (19)"
        in (told["few-images"])
    )
    assert audit.folded
    assert "hold any back" not in told["few-images"]
    assert "(many, 60) has 20.0 times as many images as the smallest (few, 3)" in told["imbalance"]
    assert told["test-small"] == "The test part has 3 images: nothing can be measured on it."
    assert all(finding.todo.endswith(".") for finding in audit.findings)


def test_classes_of_which_none_can_be_held_back_are_told(photos: Photos) -> None:
    audit = inspect(str(photos({"many": 1000, "few": 2})))
    assert not audit.folded
    assert "1 of them under 3, too few to hold any back" in kinds(audit)["few-images"]


def test_tiny_images_are_compared_exactly_only_and_that_is_said() -> None:
    audit = inspect("digits")
    assert audit.groups == ()
    assert "1,797 images are under 16 pixels a side" in kinds(audit)["too-small-to-compare"]


def test_specks_on_a_wall_are_not_copies() -> None:
    walls = []
    for number in range(20):
        wall = Image.new("RGB", (64, 64), (200, 200, 200 + number))
        wall.paste(scene(number, (8, 8)), (28, 28))
        walls.append(wall)
    assert near(walls) == set()


def test_part_that_training_would_split_off_is_counted_with_its_leaks(photos: Photos) -> None:
    folder = photos({"a": 1, "b": 1})
    for number in range(510):
        save(scene(number), folder / "ab"[number % 2] / f"{number}.png")
        save(jpeg(scene(number), 90), folder / "ab"[number % 2] / f"{number}-again.png")
    audit = inspect(str(folder))
    assert [part.name for part in audit.parts] == ["train"]
    assert 60 < audit.split_off["val"] < 130
    assert 60 < audit.split_off["test"] < 140
    assert 60 < audit.straddling <= audit.split_off["test"]
    assert f"{audit.straddling} pictures would be both in train and in" in kinds(audit)["copies"]


@pytest.mark.slow  # a thousand photos
@pytest.mark.skipif(not FLOWERS.is_dir(), reason=f"needs {FLOWERS}")
def test_flowers_have_their_six_exact_copies() -> None:
    audit = inspect(str(FLOWERS))
    exact = [group for group in audit.groups if group.exact]
    assert len(exact) == 6
    assert sum(group.scope == "classes" for group in exact) == 4
    assert 25 <= len(audit.groups) - len(exact) <= 40  # each was looked at: the same photo


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.is_dir(), reason=f"needs {CIFAR}")
def test_cifar100_has_its_ten_leaks_six_of_them_in_conflict() -> None:
    audit = inspect("cifar100", CIFAR)
    leaks = [group for group in audit.groups if group.exact and "parts" in group.scope]
    assert len(leaks) == 10
    assert sum(group.scope == "parts and classes" for group in leaks) == 6


def test_images_that_a_crop_cuts_and_deep_grey_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "odd"
    for number in range(12):
        label = "ab"[number % 2]
        size = (300, 100) if number < 4 else (100, 160) if number < 6 else (140, 100)
        save(scene(number, size), root / label / f"{number}.png")
    for number, brightest in enumerate((4095, 3000, 1023, 65535)):
        levels = np.asarray(scene(50 + number, (140, 100)).convert("L"), np.uint16)
        levels = (levels * (brightest / levels.max())).astype(np.uint16)
        save(Image.fromarray(levels), root / "a" / f"deep-{number}.png")
    audit = inspect(str(root))
    found = kinds(audit)
    assert found["cut-by-crop"].startswith("6 images of 16 are so wide or tall that")
    assert found["fewer-bits-than-stored"] == (
        "3 images have grey levels in 16 bits that use fewer: 10 bits (1), 12 bits (2)."
    )
    assert audit.parts[0].modes["grey of 16 bits in 16"] == 1
    assert "plain" not in found
