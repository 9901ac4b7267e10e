"""Parquet shards in the Hugging Face image layout, read in batches of bounded bytes."""

from __future__ import annotations

import json
import os
import re
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
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
    opened: dict[str, _Shards] = {
        part: _Shards(parts[part], image, label, len(classes))
        for part in ("train", "val", "test")
        if part in parts
    }
    return Source(
        name=path.resolve().name,
        classes=classes,
        parts=frozenset(opened),
        open_part=lambda part: _read_part(opened[part]),
        check_part=lambda part: opened[part].check(opened[part].labels()),
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


@dataclass(frozen=True)
class _Shards:
    """The shards of one part."""

    files: list[Path]
    image: str
    """The column of the images."""
    label: str
    """The column of the labels."""
    classes: int

    @property
    def part(self) -> str:
        """The part as the files are named, such as 'validation'."""
        return _part_of(self.files[0])

    @property
    def folder(self) -> Path:
        return self.files[0].parent

    def batches(self, begin: Group = (0, 0)) -> Iterator[tuple[Group, Any, Any]]:
        """Yield row group, images (n,) binary and labels (n,) int64 of each batch of rows.

        begin: the first row group. A label that is null is -1.
        """
        import pyarrow
        from pyarrow import compute

        first, skipped = begin
        for number, shard in enumerate(self.files[first:], start=first):
            with _readable(shard):
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

    def labels(self) -> NDArray[np.int64]:
        """Labels of all images, (n,), read without the images; -1 is null."""
        pieces = [np.empty(0, np.int64)]
        for shard in self.files:
            with _readable(shard):
                column = _opened(shard).read([self.label]).column(self.label)
                pieces.append(_whole_numbers(column).to_numpy())
        return np.concatenate(pieces)

    def check(self, labels: NDArray[np.int64]) -> None:
        """Raise DataError unless every image of the part has a class."""
        if not len(labels):
            raise DataError(
                f"'{self.folder}': the {self.part} part holds no image; "
                f"remove {self.part}-*.parquet"
            )
        without = int(((labels < 0) | (labels >= self.classes)).sum())
        if without:
            raise DataError(
                f"'{self.folder}': {without:,} of {len(labels):,} {self.part} images have no label "
                f"between 0 and {self.classes - 1}; label them, or take them out"
            )


@contextmanager
def _readable(shard: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.lib.ArrowException, OSError, KeyError) as error:
        raise DataError(
            f"'{shard}' cannot be read ({first_line(error)}); download it again"
        ) from error


def _whole_numbers(labels: Any) -> Any:
    return labels.cast("int64").fill_null(-1)


def _part_of(shard: Path) -> str:
    return re.split(r"[-.]", shard.name)[0]


class _Images:
    """The images of a part by position, for several threads; ascending order is fastest.

    A row group can only be decoded from its first row on, so a step back behind the batches that
    are kept decodes it again.
    """

    def __init__(self, shards: _Shards, groups: list[tuple[Group, int]]) -> None:
        self.shards = shards
        self.groups = groups  # with the positions of their first images
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
        group, start = self.groups[bisect_right(self.groups, position, key=itemgetter(1)) - 1]
        if not start <= self._next <= position:
            self._batches = self.shards.batches(group)
            self._next = start
        for _, images, _ in self._batches:
            start = self._next
            self._kept.append((start, images))
            self._next += len(images)
            if position < self._next:
                return start, images
        raise DataError(f"'{self.shards.folder}' has changed since it was opened")


def _read_part(shards: _Shards) -> Items:
    """List the images of a part: one pass, of which labels and hashes stay in memory."""
    label_bytes, hash_bytes = bytearray(), bytearray()
    groups: dict[Group, int] = {}  # with the positions of their first images
    for group, images, some in shards.batches():
        groups.setdefault(group, len(hash_bytes) // 32)
        label_bytes += some.to_numpy().data
        hash_bytes += sha256_rows(image.as_py() or b"" for image in images).data
    labels = np.frombuffer(label_bytes, np.int64)
    shards.check(labels)
    return Items(
        names=Names(f"{shards.part}/{position}" for position in range(len(labels))),
        labels=labels,
        hashes=np.frombuffer(hash_bytes, np.uint8).reshape(-1, 32),
        read=_Images(shards, list(groups.items())).read,
    )
