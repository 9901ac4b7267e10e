"""Parquet shards: their images in bounded memory, and the message for each kind of fault."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from support.patches import calls_of
from support.photos import draw, encoded
from support.shards import shard
from thawnet.core.errors import DataError
from thawnet.data.items import Items, sha256_rows
from thawnet.data.sources import shard_images
from thawnet.data.sources.open import open_source
from thawnet.data.store import open_store
from thawnet.image.preprocess import Reduction

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a train shard: cells are {bytes, path} or None."""
    folder = tmp_path / "shards"
    folder.mkdir()

    def write_shard(
        cells: Sequence[Any], labels: Sequence[Any], number: int = 0, **how: Any
    ) -> Path:
        path = folder / f"train-{number:05d}.parquet"
        names = [f"class {label}" for label in range(10)]
        path.write_bytes(shard(cells, labels, names, **how))
        return path

    return write_shard


def cell(content: bytes | None) -> dict[str, Any]:
    return {"bytes": content, "path": None}


def noise(count: int, size: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.bytes(size) for _ in range(count)]


def opened(path: Path) -> Items:
    return open_source(str(path.parent)).open_part("train")


def test_every_image_is_found_in_any_order_and_from_several_threads(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_images, "BATCH_ROWS", 2)
    images = noise(60, 50)
    write([cell(image) for image in images[:37]], [3] * 37, 0, row_group_size=10)
    path = write([cell(image) for image in images[37:]], [4] * 23, 1, row_group_size=7)
    items = opened(path)
    assert items.labels.tolist() == [3] * 37 + [4] * 23
    assert (items.hashes == sha256_rows(images)).all()
    assert items.names[59] == "train/59"
    order = np.random.default_rng(1).permutation(60).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(items.read, order)) == [images[row] for row in order]


def test_neither_opening_nor_reading_holds_a_row_group(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_images, "BATCH_BYTES", 2**18)
    monkeypatch.setattr(shard_images, "KEPT", 4)
    count, size = 128, 2**17
    images = noise(count, size)
    path = write(
        [cell(image) for image in images], [0] * count, write_batch_size=1, data_page_size=size
    )
    assert pyarrow.parquet.read_metadata(path).num_row_groups == 1
    whole = count * size
    before, most = pyarrow.total_allocated_bytes(), 0
    tracemalloc.start()
    try:
        items = opened(path)
        for row, image in enumerate(images):
            assert items.read(row) == image
            most = max(most, pyarrow.total_allocated_bytes() - before)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < whole / 8
    assert most < whole / 4


def test_reading_in_order_goes_through_each_shard_once(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_images, "BATCH_ROWS", 2)
    for number in range(3):
        path = write([cell(bytes([row])) for row in range(20)], [0] * 20, number, row_group_size=8)
    items = opened(path)
    opens = calls_of(monkeypatch, shard_images, "opened")
    assert [items.read(row) for row in range(60)] == [bytes([row]) for row in range(20)] * 3
    assert len(opens) == 3


def test_a_cell_without_an_image_is_a_broken_image(write: Write) -> None:
    photo = encoded(draw(0, 0))
    items = opened(write([cell(photo), None, cell(None)], [1, 1, 1]))
    assert [items.read(row) for row in range(3)] == [photo, b"", b""]
    store = open_store(items, Reduction(40), lambda done: None, 1)
    assert [name for name, _ in store.broken] == ["train/1", "train/2"]


def test_a_label_that_is_no_class_is_one_sentence(write: Write) -> None:
    path = write([cell(b"a"), cell(b"b")], [0, 10])
    with pytest.raises(DataError, match=r"the label 10, and its schema names no class but 0 to 9;"):
        opened(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["img", "other"], r"00001.parquet' has no column 'label', as other shards have, only"),
        (["other", "label"], r"00001.parquet' has no column 'img', as other shards have, only"),
    ],
)
def test_a_shard_that_lacks_the_columns_of_the_first_is_one_sentence(
    write: Write, names: list[str], message: str
) -> None:
    path = write([cell(b"a")], [0], 1)
    table = pyarrow.parquet.read_table(path).rename_columns(names)
    pyarrow.parquet.write_table(table, path)
    write([cell(b"a")], [0], 0)
    with pytest.raises(DataError, match=message):
        opened(path)


CANNOT_BE_READ = r"train-00000.parquet' cannot be read \([^\n]*again$"


def test_damage_inside_a_shard_is_one_sentence(write: Write) -> None:
    path = write([cell(image) for image in noise(50, 1000)], [0] * 50, compression="zstd")
    content = bytearray(path.read_bytes())
    content[4:20_000] = bytes(19_996)
    path.write_bytes(content)
    with pytest.raises(DataError, match=CANNOT_BE_READ):
        opened(path)


def test_a_column_name_that_is_no_text_is_one_sentence(write: Write) -> None:
    path = write([cell(b"a")], [0])
    path.write_bytes(path.read_bytes().replace(b"path", b"pat\xfa"))
    with pytest.raises(
        DataError, match=r"train-00000.parquet' is not a whole parquet [^\n]*again$"
    ):
        opened(path)


def test_a_shard_that_shrinks_after_it_was_opened_is_one_sentence(write: Write) -> None:
    items = opened(write([cell(image) for image in noise(30, 10)], [0] * 30))
    write([cell(image) for image in noise(20, 10)], [0] * 20)
    with pytest.raises(DataError, match="shards' has changed since it was opened"):
        items.read(25)
