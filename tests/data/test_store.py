"""The image store: built once, the same pixels, broken images listed."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.patches import calls_of
from support.photos import draw
from thawnet.core.cache import Building
from thawnet.core.errors import DataError, RunError
from thawnet.core.files import cache_entries
from thawnet.data import store as stores
from thawnet.data.sources.open import open_source
from thawnet.data.store import (
    ImageStore,
    build,
    open_store,
    require_every_class,
    typical_short_side,
)

Photos = Callable[..., Path]


def store_of(folder: Path, side: int = 40) -> ImageStore:
    source = open_source(str(folder))
    return open_store(source.open_part("train"), side, lambda done: None, 2)


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
    open_store(watched, 40, lambda done: None, 1)
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
    (folder / "a" / "001.png").write_bytes(b"")
    store = store_of(folder)
    assert store.names == ["a/000.png", "a/002.png", "b/000.png", "b/001.png"]
    assert store.subset(np.array([3, 1])).names == ["b/001.png", "a/002.png"]
    copy = folder.rename(tmp_path / "copy")
    (copy / "a" / "002.png").rename(copy / "a" / "renamed.png")
    assert store_of(copy).names[1] == "a/renamed.png"
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


def require_classes(folder: Path) -> None:
    items = open_source(str(folder)).open_part("train")
    require_every_class(store_of(folder), items, ("a", "b"))


def test_class_whose_every_image_is_broken_is_an_error(photos: Photos) -> None:
    folder = photos({"a": 3, "b": 1})
    (folder / "b" / "000.png").write_bytes(b"")
    told = r"the only training image of class 'b' cannot be read.*b/000.png.*empty"
    with pytest.raises(DataError, match=told):
        require_classes(folder)


def test_typical_side_is_the_median_and_survives_broken_files(photos: Photos) -> None:
    folder = photos({"a": 4, "b": 4})
    (folder / "a" / "000.png").write_bytes(b"")
    items = open_source(str(folder)).open_part("train")
    assert typical_short_side(items) == 40


def test_store_whose_every_image_is_broken_is_an_error_not_a_crash(photos: Photos) -> None:
    folder = photos({"a": 1, "b": 1})
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"image of class 'a' cannot be read; .*'a/000.png'"):
        require_classes(folder)


def test_first_failure_named_is_one_of_the_lost_class(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 1})
    (folder / "a" / "000.png").write_bytes(b"")
    (folder / "b" / "000.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"class 'b' .*'b/000.png' \(not an image"):
        require_classes(folder)


def test_broken_images_are_named_as_they_are_called_now(photos: Photos) -> None:
    folder = photos({"a": 2, "b": 2})
    (folder / "a" / "text.png").write_text("x")
    assert store_of(folder).broken[0][0] == "a/text.png"
    (folder / "a" / "text.png").rename(folder / "a" / "words.png")
    store = store_of(folder)
    assert store.broken[0][0] == "a/words.png"
    assert len(cache_entries()) == 1


def test_progress_reaches_the_number_of_images(photos: Photos) -> None:
    source = open_source(str(photos({"a": 70, "b": 30})))
    seen: list[int] = []
    open_store(source.open_part("train"), 40, seen.append, 2)
    assert sum(seen) == 100
    assert len(seen) > 5


def stopped_after(blocks: int) -> Callable[[int], None]:
    """Return a progress that is interrupted, as by Ctrl-C, once so many blocks are done."""
    seen: list[int] = []

    def progress(done: int) -> None:
        seen.append(done)
        if len(seen) > blocks:  # the first says what was there before
            raise KeyboardInterrupt

    return progress


def test_interrupted_store_loses_nothing_and_ends_with_the_same_bytes(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = photos({"a": 50, "b": 50})
    for broken in ("a/003.png", "a/020.png", "b/040.png"):
        (folder / broken).write_text("no picture")
    source = open_source(str(folder))
    items = source.open_part("train")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    build(whole, items, 40, lambda done: None, 2)
    decoded = calls_of(monkeypatch, stores, "decode")
    seen: list[int] = []
    for blocks in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            build(stopped, items, 40, stopped_after(blocks), 1)
    ahead = len(decoded) - 40  # read, but not yet written
    part = tmp_path / ".stopped.part"
    for name in ("pixels.bin", ".note-images.bin"):  # what a killed process wrote after its note
        with (part / name).open("ab") as file:
            file.write(bytes(1_000_000))
    build(stopped, items, 40, seen.append, 1)
    assert seen[0] == 40
    assert sum(seen) == 100
    assert len(decoded) - ahead == 100
    for path in whole.iterdir():
        assert (stopped / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list(stopped.iterdir())) == len(list(whole.iterdir())) == 3


def test_unfinished_store_whose_files_were_cut_is_begun_again(
    photos: Photos, tmp_path: Path
) -> None:
    items = open_source(str(photos({"a": 50, "b": 50}))).open_part("train")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    build(whole, items, 40, lambda done: None, 2)
    with pytest.raises(KeyboardInterrupt):
        build(stopped, items, 40, stopped_after(5), 1)
    os.truncate(tmp_path / ".stopped.part" / "pixels.bin", 100)
    build(stopped, items, 40, lambda done: None, 1)
    assert (stopped / "pixels.bin").read_bytes() == (whole / "pixels.bin").read_bytes()


def test_stop_in_the_middle_of_a_block_counts_no_image_twice(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = photos({"a": 30, "b": 30})
    (folder / "a" / "020.png").write_text("no picture")
    items = open_source(str(folder)).open_part("train")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    build(whole, items, 40, lambda done: None, 2)

    class Stopping(io.BufferedRandom):
        """Is interrupted in its 23rd write, behind the broken image of the third block."""

        writes = 0

        def write(self, data: Any) -> int:
            self.writes += 1
            if self.writes == 23:
                raise KeyboardInterrupt
            return super().write(data)

    def opened(self: Building, name: str) -> Stopping:
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT)
        return Stopping(io.FileIO(handle, "r+"))

    with monkeypatch.context() as patch:
        patch.setattr(Building, "open", opened)
        with pytest.raises(KeyboardInterrupt):
            build(stopped, items, 40, lambda done: None, 1)
    build(stopped, items, 40, lambda done: None, 1)
    for path in whole.iterdir():
        assert (stopped / path.name).read_bytes() == path.read_bytes(), path.name


def test_data_that_vanishes_in_the_middle_is_not_taken_for_broken_images(
    photos: Callable[..., Path],
) -> None:
    folder = photos({"a": 3, "b": 3})
    source = open_source(str(folder))
    items = source.open_part("train")
    shutil.move(folder, folder.with_name("away"))
    with pytest.raises(RunError, match=r"was there when the images were listed .*No such file"):
        open_store(items, 40, lambda done: None, 1)
    shutil.move(folder.with_name("away"), folder)
    store = open_store(items, 40, lambda done: None, 1)
    assert len(store) == 6
    assert store.broken == ()
