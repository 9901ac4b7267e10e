"""Parquet shards in the Hugging Face image layout, read in batches of bounded bytes."""

from __future__ import annotations

import json
import os
import re
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, first_line
from ..items import VALIDATION_NAMES, Items, Source, sha256_rows
from ..names import Names

BATCH_BYTES = 2**22  # of a row group that are decoded at a time, by its own account
BATCH_ROWS = 1024  # at most: equal images are stored once, and decoded take more than that
KEPT = 4 + (os.cpu_count() or 1)  # batches: threads that decode in order are some images apart


def from_shards(path: Path, shards: list[Path]) -> Source:
    """Return the source that a folder's shards (train-*, validation-*, test-*.parquet) form.

    Raises DataError when shards are missing, damaged or do not name their columns.
    """
    parts: dict[str, list[Path]] = {}
    for shard in shards:
        word = _part_of(shard)
        parts.setdefault("val" if word in VALIDATION_NAMES else word, []).append(shard)
    if "train" not in parts:
        raise DataError(
            f"'{path}' holds parquet shards but none named train-*.parquet; "
            f"found {', '.join(shard.name for shard in shards[:4])}"
        )
    for files in parts.values():
        _check_all_there(files)
    image, label, classes = _layout(parts["train"][0])
    return Source(
        name=path.resolve().name,
        classes=classes,
        parts=frozenset(parts) & {"train", "val", "test"},
        open_part=lambda part: _read_part(_Shards(parts[part], image, label), len(classes)),
        check_part=lambda part: _check_labels(_Shards(parts[part], image, label), len(classes)),
    )


def _check_all_there(files: list[Path]) -> None:
    match = re.search(r"-of-(\d+)", files[0].name)
    if match and int(match[1]) != len(files):
        raise DataError(
            f"'{files[0].parent}' holds {len(files)} of {int(match[1])} shards like "
            f"'{files[0].name}'; download the missing ones"
        )


def _layout(shard: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return the image column, the label column and the class names of a shard."""
    schema = _opened(shard).schema_arrow
    try:
        features: dict[str, Any] = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        images = [name for name, kind in features.items() if kind["_type"] == "Image"]
        labels = {
            name: tuple(str(word) for word in kind["names"])
            for name, kind in features.items()
            if kind["_type"] == "ClassLabel"
        }
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"'{shard}' has no Hugging Face schema that names its image and label columns"
        ) from error
    if not images or not labels:
        raise DataError(
            f"'{shard}' needs an Image and a ClassLabel column; it has {list(features)}"
        )
    label = next((name for name in ("fine_label", "label") if name in labels), next(iter(labels)))
    return images[0], label, labels[label]


def _opened(shard: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        # Buffered, else whole row groups would be fetched before the first of their rows.
        return pyarrow.parquet.ParquetFile(shard, pre_buffer=False, buffer_size=2**16)
    except (pyarrow.lib.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"'{shard}' is not a whole parquet file ({shard.stat().st_size:,} bytes; "
            f"{first_line(error)}); download it again"
        ) from error


Group = tuple[int, int]  # a row group: the number of its shard, and its own in that


class _Shards:
    """The shards of one part, and the names of their columns."""

    def __init__(self, files: list[Path], image: str, label: str) -> None:
        self.files = files
        self.image = image
        self.label = label

    def batches(self, begin: Group = (0, 0)) -> Iterator[tuple[Group, Any, Any]]:
        """Yield row group, images (n,) binary and labels (n,) int64 of each batch of rows.

        begin: the first row group. A label that is null is -1.
        """
        import pyarrow
        from pyarrow import compute

        first, skipped = begin
        for number, shard in enumerate(self.files[first:], start=first):
            try:
                file = _opened(shard)
                for group in range(skipped if number == first else 0, file.num_row_groups):
                    meta = file.metadata.row_group(group)
                    fit = BATCH_BYTES * meta.num_rows // max(1, meta.total_byte_size)
                    for batch in file.iter_batches(
                        min(max(1, fit), BATCH_ROWS), [group], [self.image, self.label]
                    ):
                        images = compute.struct_field(  # type: ignore[attr-defined] # made at import
                            batch.column(self.image), "bytes"
                        )
                        yield (number, group), images, _whole_numbers(batch.column(self.label))
                # The pool would keep what decoding took, some tens of megabytes.
                pyarrow.lib.default_memory_pool().release_unused()
            except (pyarrow.lib.ArrowException, OSError, KeyError) as error:
                raise _unreadable(shard, error) from error

    def labels(self) -> NDArray[np.int64]:
        """Return the labels of all images, (n,), without reading an image; -1 is null."""
        import pyarrow

        pieces = [np.empty(0, np.int64)]
        for shard in self.files:
            try:
                column = _opened(shard).read([self.label]).column(self.label)
                pieces.append(_whole_numbers(column).to_numpy())
            except (pyarrow.lib.ArrowException, OSError, KeyError) as error:
                raise _unreadable(shard, error) from error
        return np.concatenate(pieces)


def _whole_numbers(labels: Any) -> Any:
    return labels.cast("int64").fill_null(-1)


def _unreadable(shard: Path, error: Exception) -> DataError:
    return DataError(f"'{shard}' cannot be read ({first_line(error)}); download it again")


def _check_labels(shards: _Shards, classes: int) -> None:
    _require_classes(shards, shards.labels(), classes)


def _require_classes(shards: _Shards, labels: NDArray[np.int64], classes: int) -> None:
    """Raise DataError unless every image of a part has a class."""
    part, folder = _part_of(shards.files[0]), shards.files[0].parent
    if not len(labels):
        raise DataError(f"'{folder}': the {part} part holds no image; remove {part}-*.parquet")
    without = int(((labels < 0) | (labels >= classes)).sum())
    if without:
        raise DataError(
            f"'{folder}': {without:,} of {len(labels):,} {part} images have no label between 0 and "
            f"{classes - 1}; label them, or take them out"
        )


def _part_of(shard: Path) -> str:
    return re.split(r"[-.]", shard.name)[0]


class _Images:
    """Reads the images of a part by position, from several threads, best in ascending order.

    A row group can only be decoded from its first row on: who steps back behind the batches that
    are kept waits for that.
    """

    def __init__(self, shards: _Shards, groups: list[Group], starts: list[int]) -> None:
        self.shards = shards
        self.groups = groups
        self.starts = starts  # positions of the row groups' first images
        self._kept: deque[tuple[int, Any]] = deque(maxlen=KEPT)  # first position, images
        self._batches: Iterator[tuple[Group, Any, Any]] = iter(())
        self._next = -1  # the position that the next batch begins with
        self._lock = threading.Lock()

    def read(self, position: int) -> bytes:
        """Return an image as it is stored, nothing where a cell is null."""
        with self._lock:
            start, images = self._batch(position)
        return images[position - start].as_py() or b""

    def _batch(self, position: int) -> tuple[int, Any]:
        for start, images in self._kept:
            if start <= position < start + len(images):
                return start, images
        place = bisect_right(self.starts, position) - 1
        if not self.starts[place] <= self._next <= position:
            self._batches = self.shards.batches(self.groups[place])
            self._next = self.starts[place]
        for _, images, _ in self._batches:
            start = self._next
            self._kept.append((start, images))
            self._next += len(images)
            if position < self._next:
                return start, images
        raise DataError(f"'{self.shards.files[0].parent}' has changed since it was opened")


def _read_part(shards: _Shards, classes: int) -> Items:
    """List the images of a part: one pass, of which labels and hashes stay in memory."""
    labels, hashes = bytearray(), bytearray()
    groups: list[Group] = []
    starts: list[int] = []
    for group, images, some in shards.batches():
        if groups[-1:] != [group]:
            groups.append(group)
            starts.append(len(hashes) // 32)
        labels += some.to_numpy().data
        hashes += sha256_rows(image.as_py() or b"" for image in images).data
    array = np.frombuffer(labels, np.int64)
    _require_classes(shards, array, classes)
    part = _part_of(shards.files[0])
    return Items(
        names=Names(f"{part}/{position}" for position in range(len(array))),
        labels=array,
        hashes=np.frombuffer(hashes, np.uint8).reshape(-1, 32),
        read=_Images(shards, groups, starts).read,
    )
