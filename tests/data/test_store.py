"""The image store: built once, the same pixels, broken images listed."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.photos import draw, encoded
from thawnet.bundle.picture import cut_square
from thawnet.core.errors import DataError, RunError
from thawnet.core.files import cache_entries
from thawnet.data import store as stores
from thawnet.data.items import Items
from thawnet.data.parallel import in_order
from thawnet.data.sources.open import open_source
from thawnet.data.store import (
    ImageStore,
    Typical,
    build,
    open_store,
    require_every_class,
    typical_image,
)
from thawnet.image import heic
from thawnet.image.decode import decode
from thawnet.image.preprocess import Fit, Preprocess, Reduction, centre_crop, squared, store_side

Photos = Callable[..., Path]


def store_of(folder: Path, side: int = 40) -> ImageStore:
    source = open_source(str(folder))
    return open_store(source.open_part("train"), Reduction(side), lambda done: None, 2)


def test_store_holds_the_decoded_pixels_in_order(photos: Photos) -> None:
    store = store_of(photos({"a": 2, "b": 3}))
    expected = np.stack([np.asarray(draw(0, 1)), np.asarray(draw(1, 2))])
    assert (store.batch(np.array([1, 4])) == expected).all()
    assert store.labels.tolist() == [0, 0, 1, 1, 1]


def test_second_opening_reads_no_image(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos({"a": 2, "b": 2})
    first = store_of(folder)
    monkeypatch.setattr(
        "thawnet.data.store.decode", lambda data, side: pytest.fail("decoded again")
    )
    assert store_of(folder).fingerprint == first.fingerprint
    assert len(cache_entries()) == 1


def test_a_block_is_read_in_order_before_any_of_it_is_decoded(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shards are read in order, or again from the start of a row group.
    items = open_source(str(photos({"a": 6, "b": 6}))).open_part("train")
    done: list[str] = []
    watched = replace(items, read=lambda row: done.append(f"read {row}") or items.read(row))
    plain = stores.decode
    monkeypatch.setattr(stores, "decode", lambda *raw: done.append("decode") or plain(*raw))
    open_store(watched, Reduction(40), lambda done: None, 1)
    reads = [f"read {row}" for row in range(12)]
    assert done == [*reads[:8], *["decode"] * 8, *reads[8:], *["decode"] * 4]


def test_changed_image_is_another_store(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    first = store_of(folder)
    draw(3, 9).save(folder / "a" / "000.png")
    assert store_of(folder).fingerprint != first.fingerprint


def test_images_of_many_shapes_are_cut_along_the_longer_side(photos: Photos) -> None:
    folder = photos({"a": 1, "b": 1})
    wide = Image.new("RGB", (120, 40), "black")
    wide.paste((255, 255, 255), (80, 0, 120, 40))
    wide.save(folder / "a" / "wide.png")
    store = store_of(folder)
    position = np.array([1])
    assert store.batch(position).max() == 0  # the middle is black
    assert store.batch(position, np.array([1.0], np.float32)).min() == 255


def test_names_follow_the_images_past_broken_ones_and_into_a_copy_of_the_folder(
    photos: Photos, tmp_path: Path
) -> None:
    folder = photos({"a": 3, "b": 2})
    (folder / "a" / "001.png").write_text("x")
    store = store_of(folder)
    assert store.names == ["a/000.png", "a/002.png", "b/000.png", "b/001.png"]
    assert store.broken[0][0] == "a/001.png"
    assert store.subset(np.array([3, 1])).names == ["b/001.png", "a/002.png"]
    copy = folder.rename(tmp_path / "copy")
    (copy / "a" / "001.png").rename(copy / "a" / "0015.png")
    (copy / "a" / "002.png").rename(copy / "a" / "renamed.png")
    assert store_of(copy).names[1] == "a/renamed.png"
    assert store_of(copy).broken[0][0] == "a/0015.png"
    assert len(cache_entries()) == 1


def test_broken_images_are_listed_with_reasons_and_left_out(photos: Photos) -> None:
    folder = photos({"a": 3, "b": 3})
    (folder / "a" / "empty.jpg").write_bytes(b"")
    (folder / "a" / "text.jpg").write_text("not a picture")
    whole = (folder / "b" / "001.png").read_bytes()
    (folder / "b" / "001.png").write_bytes(whole[:200])
    store = store_of(folder)
    assert len(store) == 5
    reasons = dict(store.broken)
    assert reasons["a/empty.jpg"] == "the file is empty (0 bytes)"
    assert reasons["a/text.jpg"] == "not an image in a known format"
    assert reasons["b/001.png"].startswith("damaged: ")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (["b/000.png"], r"^the only training image of class 'b' cannot be read.*'b/000.png' \(not"),
        (["a/000.png", "b/000.png"], r"class 'b' .*'b/000.png' \(not an image"),
        (
            ["a/000.png", "a/001.png", "b/000.png"],
            r"^none of the 2 training images of class 'a' can be read; .*'a/000.png'",
        ),
    ],
)
def test_class_whose_every_image_is_broken_is_an_error(
    photos: Photos, broken: list[str], told: str
) -> None:
    folder = photos({"a": 2, "b": 1})
    for name in broken:
        (folder / name).write_text("no picture")
    items = open_source(str(folder)).open_part("train")
    with pytest.raises(DataError, match=told):
        require_every_class(store_of(folder), items, ("a", "b"))


def test_typical_side_is_the_median_and_survives_broken_files(photos: Photos) -> None:
    folder = photos({"a": 4, "b": 4})
    (folder / "a" / "000.png").write_bytes(b"")
    items = open_source(str(folder)).open_part("train")
    assert typical_image(items) == Typical(40, 40)


def test_progress_reaches_the_number_of_images(photos: Photos) -> None:
    source = open_source(str(photos({"a": 70, "b": 30})))
    seen: list[int] = []
    open_store(source.open_part("train"), Reduction(40), seen.append, 2)
    assert sum(seen) == 100
    assert len(seen) > 5


def interrupt(
    monkeypatch: pytest.MonkeyPatch, path: Path, items: Items, blocks: int, images: int
) -> None:
    """Build a store until Ctrl-C comes, after so many blocks and images of the next one."""

    def stopping(*arguments: Any) -> Iterator[Any]:
        done = in_order(*arguments)
        yield from itertools.islice(done, blocks)
        yield stopped(next(done)[:images])

    def stopped(block: list[Any]) -> Iterator[Any]:
        yield from block
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stores, "in_order", stopping)
        with pytest.raises(KeyboardInterrupt):
            build(path, items, Reduction(40), lambda done: None, 1)


def test_interrupted_store_loses_no_block_and_ends_with_the_same_bytes(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = photos({"a": 50, "b": 50})
    for broken in ("a/003.png", "a/020.png", "b/040.png"):
        (folder / broken).write_text("no picture")
    items = open_source(str(folder)).open_part("train")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    build(whole, items, Reduction(40), lambda done: None, 2)
    interrupt(monkeypatch, stopped, items, 2, 6)  # behind the broken image of the third block
    interrupt(monkeypatch, stopped, items, 3, 1)
    seen: list[int] = []
    build(stopped, items, Reduction(40), seen.append, 1)
    assert (seen[0], sum(seen)) == (40, 100)
    for path in whole.iterdir():
        assert (stopped / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list(stopped.iterdir())) == len(list(whole.iterdir())) == 3


def test_unfinished_store_whose_files_were_cut_is_begun_again(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    items = open_source(str(photos({"a": 50, "b": 50}))).open_part("train")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    build(whole, items, Reduction(40), lambda done: None, 2)
    interrupt(monkeypatch, stopped, items, 5, 0)
    os.truncate(tmp_path / ".stopped.part" / "pixels.bin", 100)
    build(stopped, items, Reduction(40), lambda done: None, 1)
    assert (stopped / "pixels.bin").read_bytes() == (whole / "pixels.bin").read_bytes()


def test_data_that_vanishes_in_the_middle_is_not_taken_for_broken_images(
    photos: Callable[..., Path],
) -> None:
    folder = photos({"a": 3, "b": 3})
    source = open_source(str(folder))
    items = source.open_part("train")
    shutil.move(folder, folder.with_name("away"))
    with pytest.raises(RunError, match=r"was there when the images were listed .*No such file"):
        open_store(items, Reduction(40), lambda done: None, 1)
    shutil.move(folder.with_name("away"), folder)
    store = open_store(items, Reduction(40), lambda done: None, 1)
    assert len(store) == 6
    assert store.broken == ()


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_store_holds_what_prediction_cuts(tmp_path: Path, fit: Fit) -> None:
    for number, size in enumerate([(120, 40), (41, 120), (64, 64), (300, 222)]):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(draw(0, number, size), "JPEG"))
    items = open_source(str(tmp_path / "photos")).open_part("train")
    typical = typical_image(items)
    side = store_side(32, typical.short, typical.long, fit)
    spec = Preprocess(32, side, (0.5, 0.4, 0.3), (0.5, 0.5, 0.5), fit)
    store = open_store(items, spec.reduction, lambda done: None, 1)
    for row in range(len(items)):
        raw = items.read(row)
        assert isinstance(raw, bytes)
        seen = centre_crop(store.batch(np.array([row]))[0], spec.crop)
        assert (seen == squared(decode(raw, spec.side), spec)).all()


def test_images_that_lacked_a_package_are_read_once_it_is_there(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos({"a": 2, "b": 2})
    (folder / "a" / "x.heic").write_bytes(encoded(draw(0, 9, (64, 64)), heic.add_heic()))
    heic.add_heic.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        (broken,) = store_of(folder).broken
        assert broken == ("a/x.heic", f"{heic.LACKING}; or save the photo as JPEG")
        assert len(store_of(folder)) == 4  # kept, and not built at every start
    heic.add_heic.cache_clear()
    assert (store_of(folder).broken, len(store_of(folder))) == ((), 5)


def test_grey_levels_of_16_bits_are_read_alike_in_all_images(tmp_path: Path) -> None:
    levels = np.tile(np.linspace(0, 1, 64), (64, 1))
    for number, brightest in enumerate([600, 1000, 1030, 3900]):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((levels * brightest).astype(np.uint16)).save(path)
    items = open_source(str(tmp_path / "photos")).open_part("train")
    assert typical_image(items) == Typical(64, 64, 12)
    spec = Preprocess(64, 64, (0.5,) * 3, (0.5,) * 3, bits=12)  # type: ignore[arg-type]
    store = open_store(items, spec.reduction, lambda done: None, 1)
    seen = {
        name: int(store.batch(np.array([row]))[0].max()) for row, name in enumerate(items.names)
    }
    assert seen == {"a/0.png": 37, "b/1.png": 62, "a/2.png": 64, "b/3.png": 243}
    for row in range(4):
        raw = items.read(row)
        assert isinstance(raw, bytes)
        square, _ = cut_square(raw, spec)  # type: ignore[misc] # no error
        assert (square == store.batch(np.array([row]))[0]).all()
