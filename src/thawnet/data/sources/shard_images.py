"""The images of a part stored in parquet shards, read in batches of bounded size."""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, ImageError
from ...core.text import counted
from ...image.files import read_file
from ..items import MOST_MISSING, Items
from ..listing import hash_of_unread
from ..names import Names
from .parquet import TEXT, opened, readable

BATCH_BYTES = 2**22  # of a row group decoded at a time, by its declared size
BATCH_ROWS = 1024  # at most: equal images are stored once, so they may take more bytes when decoded
KEPT = 4 + (os.cpu_count() or 1)  # batches: threads that decode in order are a few images apart

Group = tuple[int, int]  # a row group: the number of its shard, and its number in it


@dataclass(frozen=True)
class Cells:
    """Some rows of a column of images."""

    folder: Path
    """The folder of the shard."""
    contents: Any
    """Encoded images, (n,) binary, null if absent."""
    paths: Any
    """Paths, in the folder, of images that are null, (n,) text or null; None without such."""

    def __len__(self) -> int:
        return len(self.contents)

    def path(self, row: int) -> str:
        """Return the name of an image's file, which may hold any bytes; empty for none."""
        cell = None if self.paths is None else self.paths[row].as_buffer()
        return "" if cell is None else os.fsdecode(cell.to_pybytes())

    def read(self, row: int) -> bytes:
        """Return an encoded image, empty if the cell has none.

        Raises OSError if its file is missing, ImageError if it must not be read.
        """
        content = self.contents[row].as_py()
        path = "" if content else self.path(row)
        if not path:
            return content or b""
        folder = os.path.abspath(self.folder)  # noqa: PTH100 - links may lead anywhere
        file = os.path.normpath(os.path.join(folder, path))  # noqa: PTH118 - as above
        if "\0" in path or not file.startswith(os.path.join(folder, "")):  # noqa: PTH118
            raise ImageError(f"'{path}' is not in the folder of its shard")
        return read_file(Path(file))


@dataclass(frozen=True)
class Shards:
    """The shards of one part."""

    part: str
    files: list[Path]
    image: str
    """The column of the images."""
    labels: NDArray[np.int64]
    """Class index of every row; rows with -1 are left out."""

    @property
    def folder(self) -> Path:
        """The folder of the first shard."""
        return self.files[0].parent

    def batches(self, begin: Group = (0, 0)) -> Iterator[tuple[Group, Cells]]:
        """Yield each batch of rows with its row group; begin: the first row group."""
        import pyarrow
        from pyarrow import compute

        field: Any = compute.struct_field  # type: ignore[attr-defined] # made at import
        first, skipped = begin
        for number, shard in enumerate(self.files[first:], start=first):
            with readable(shard):
                file = opened(shard)
                for group in range(skipped if number == first else 0, file.num_row_groups):
                    meta = file.metadata.row_group(group)
                    fit = BATCH_BYTES * meta.num_rows // max(1, meta.total_byte_size)
                    for batch in file.iter_batches(
                        min(max(1, fit), BATCH_ROWS), [group], [self.image]
                    ):
                        cells, paths = batch.column(self.image), None
                        if str(cells.type).startswith("struct<"):
                            index = cells.type.get_field_index("path")
                            if index >= 0 and str(cells.type.field(index).type) in TEXT:
                                paths = field(cells, "path")
                            cells = field(cells, "bytes")
                        yield (number, group), Cells(shard.parent, cells, paths)
                # The pool would keep the tens of megabytes that decoding took.
                pyarrow.lib.default_memory_pool().release_unused()

    def changed(self) -> DataError:
        """Return the error for shards whose rows changed since they were counted."""
        return DataError(f"'{self.folder}' has changed since it was opened")


class _Images:
    """The images of a part by row, for several threads; ascending order is fastest.

    A row group can only be decoded from its first row, so a step back beyond the batches that are
    kept decodes it again.
    """

    def __init__(self, shards: Shards, groups: list[tuple[Group, int]]) -> None:
        self.shards = shards
        self.groups = groups  # with their first rows
        self._kept: deque[tuple[int, Cells]] = deque(maxlen=KEPT)  # with their first rows
        self._batches: Iterator[tuple[Group, Cells]] = iter(())
        self._next = -1  # the row that the next batch begins with
        self._lock = threading.Lock()

    def read(self, row: int) -> bytes:
        """Return an image as it is stored."""
        with self._lock:
            start, cells = self._batch(row)
        return cells.read(row - start)

    def _batch(self, row: int) -> tuple[int, Cells]:
        for start, cells in self._kept:
            if start <= row < start + len(cells):
                return start, cells
        group, start = self.groups[bisect_right(self.groups, row, key=itemgetter(1)) - 1]
        if not start <= self._next <= row:
            self._batches = self.shards.batches(group)
            self._next = start
        for _, cells in self._batches:
            start = self._next
            self._kept.append((start, cells))
            self._next += len(cells)
            if row < self._next:
                return start, cells
        raise self.shards.changed()


def read_part(shards: Shards) -> Items:
    """List the images of a part in one pass, keeping only hashes in memory.

    Raises DataError if most images are in separate files that cannot be read.
    """
    rows = np.flatnonzero(shards.labels >= 0)
    names = Names(f"{shards.part}/{row}" for row in rows.tolist())
    hashes = bytearray()
    groups: dict[Group, int] = {}  # with their first rows
    start = missing = 0
    lost = ""
    for group, cells in shards.batches():
        groups.setdefault(group, start)
        for row in np.flatnonzero(shards.labels[start : start + len(cells)] >= 0).tolist():
            try:
                hashes += hashlib.sha256(cells.read(row)).digest()
            except (OSError, ImageError):
                hashes += hash_of_unread(names[len(hashes) // 32])
                missing += 1
                lost = lost or cells.path(row)
        start += len(cells)
    if start != len(shards.labels):
        raise shards.changed()
    if missing > MOST_MISSING * len(rows):
        raise DataError(
            f"'{shards.folder}': {missing:,} of {counted(len(rows), f'{shards.part} image')} are "
            f"not in the shards but in files beside them, such as '{lost}', that cannot be read "
            "there; put them into that folder, or save the images themselves"
        )
    read = _Images(shards, list(groups.items())).read
    return Items(
        names=names,
        labels=shards.labels[rows],
        hashes=np.frombuffer(hashes, np.uint8).reshape(-1, 32),
        read=lambda position: read(int(rows[position])),
    )
