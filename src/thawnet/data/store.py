"""The image store: every image decoded and reduced once, uint8 on disk, memory-mapped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from ..core.cache import NOTE, Building, building, remove
from ..core.errors import DataError, ImageError
from ..core.files import cache_folder, fingerprint, write_json
from ..image.decode import NAMED, decode, level_bits, size
from ..image.heic import LACKING, reads_heic
from ..image.preprocess import Reduction, reduce
from ..net.published import Tell
from .items import Items, Raw, spread_over, tied
from .listing import read_or_reason
from .parallel import blocks, in_order

VERSION = 4
BLOCK = 8  # images a thread decodes at a time

# While a store is built, one record per image: SHA-256 of its pixels, height, width; 0 if broken.
RECORDS = f"{NOTE}-images.bin"
RECORD = np.dtype([("own", "u1", 32), ("shape", "<i4", 2)])
RECORDS_AT_ONCE = 65_536

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Typical:
    """Typical size and bit depth of a data set's images."""

    short: int
    """Median of the short side in pixels; `long` likewise."""
    long: int
    bits: int = 0
    """Most bits that the grey levels of any 16-bit image use; 0 if there is no such image."""


@dataclass(frozen=True)
class ImageStore:
    """Reduced images of one side length, or a subset of them in a given order."""

    pixels: NDArray[np.uint8]
    """All pixels, flat and memory-mapped."""
    offsets: NDArray[np.int64]
    """First byte of each image."""
    shapes: NDArray[np.int32]
    """Height and width, (n, 2)."""
    all_labels: NDArray[np.int64]
    """As in Items; so are the next two and `all_groups`."""
    all_hashes: NDArray[np.uint8]
    all_names: Sequence[str]
    rows: NDArray[np.int64]
    """The selected images, in order."""
    side: int
    content: str
    """Fingerprint of the pixels and labels."""
    broken: tuple[tuple[str, str], ...] = ()
    """Name and reason of every image that could not be read."""
    all_groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, (n,) int64."""
        return self.all_labels[self.rows]

    @property
    def hashes(self) -> NDArray[np.uint8]:
        """SHA-256 of each image as its source holds it, (n, 32) uint8."""
        return self.all_hashes[self.rows]

    @property
    def ties(self) -> NDArray[np.int64]:
        """Numbers of the sets that a split keeps together, (n,) int64; see items.tied."""
        groups = None if self.all_groups is None else self.all_groups[self.rows]
        return tied(self.hashes, groups)

    @property
    def names(self) -> list[str]:
        """The name of each image in its source."""
        return [self.all_names[row] for row in self.rows]

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the store's content and the selected rows."""
        return fingerprint([self.content, hashlib.sha256(self.rows.tobytes()).hexdigest()])

    def subset(self, rows: NDArray[np.int64]) -> ImageStore:
        """Return the images at `rows` of this store, in that order, sharing its memory."""
        return replace(self, rows=self.rows[rows])

    @cached_property
    def squares(self) -> NDArray[np.uint8] | None:
        """All images, (n, side, side, 3), if all are square: a batch is then a single gather."""
        if (self.shapes == self.side).all():
            return self.pixels.reshape(-1, self.side, self.side, 3)
        return None

    def batch(
        self, positions: NDArray[np.int64], along: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """Return squares cut from the images at `positions`, (n, side, side, 3).

        along: where to cut the longer side, 0 (start) to 1 (end); by default the middle.
        """
        rows = self.rows[positions]
        if self.squares is not None:
            return self.squares[rows]
        side = self.side
        batch = np.empty((len(rows), side, side, 3), dtype=np.uint8)
        for position, row in enumerate(rows):
            height, width = self.shapes[row]
            start = self.offsets[row]
            image = self.pixels[start : start + height * width * 3].reshape(height, width, 3)
            cut = 0.5 if along is None else float(along[position])
            top, left = int((height - side) * cut), int((width - side) * cut)
            batch[position] = image[top : top + side, left : left + side]
        return batch


def typical_image(items: Items) -> Typical:
    """Measure up to 100 images spread over the list; raise DataError if none can be read."""
    sides: list[tuple[int, int]] = []
    bits = 0
    reason = ""
    for position in spread_over(len(items), 100):
        try:
            raw = items.read(int(position))
            width, height = size(raw) if isinstance(raw, bytes) else raw.shape[:2]
            bits = max(bits, level_bits(raw) if isinstance(raw, bytes) else 0)
            sides.append((min(width, height), max(width, height)))
        except (ImageError, OSError) as error:
            reason = reason or str(error)
    if not sides:
        raise DataError(
            f"none of the images that were tried can be read, for example '{items.names[0]}' "
            f"({reason}); expected {NAMED} files"
        )
    short, long = np.median(sides, axis=0)
    return Typical(int(short), int(long), bits)


def open_store(
    items: Items,
    how: Reduction,
    progress: Progress,
    workers: int,
    tell: Tell = lambda text: None,
) -> ImageStore:
    """Return the store of these images after reduction, building it in the cache if needed.

    `progress` is called with the number of images newly done, `tell` with a line for the user.
    Raises RunError when the cache cannot be written.
    """
    path = store_folder(items, how)
    if path.is_dir():
        store = load(path, items)
        if not (any(why.startswith(LACKING) for _, why in store.broken) and reads_heic()):
            return store
        del store  # Windows keeps files that are open
        remove(path)  # the package that some images needed is now installed
    build(path, items, how, progress, workers, tell)
    return load(path, items)


def require_every_class(store: ImageStore, items: Items, classes: Sequence[str]) -> None:
    """Raise DataError if no image of some class could be read: training needs one of each."""
    missing = np.setdiff1d(items.labels, store.all_labels)
    if len(missing):
        label_of = dict(zip(items.names, items.labels.tolist(), strict=True))
        name, why = next(pair for pair in store.broken if label_of[pair[0]] == missing[0])
        count = int((items.labels == missing[0]).sum())
        which = (
            "the only training image" if count == 1 else f"none of the {count:,} training images"
        )
        can = "cannot" if count == 1 else "can"
        raise DataError(
            f"{which} of class '{classes[missing[0]]}' {can} be read; the first that failed: "
            f"'{name}' ({why})"
            + ("" if why.startswith(LACKING) else "; replace what is broken, or remove the class")
        )


def store_folder(items: Items, how: Reduction) -> Path:
    """Return the cache folder of the store of these images after reduction."""
    key = fingerprint([VERSION, items.fingerprint, asdict(how), PIL.__version__])
    return cache_folder() / "stores" / key


def build(
    path: Path,
    items: Items,
    how: Reduction,
    progress: Progress,
    workers: int,
    tell: Tell = lambda text: None,
) -> None:
    """Decode and reduce images into a folder, listing those that cannot be read.

    An interrupted build is resumed, and gives the same bytes.
    """
    with building(path, tell) as work:
        if work is not None:
            _grow(work, items, how, progress, workers)


def _grow(work: Building, items: Items, how: Reduction, progress: Progress, workers: int) -> None:
    def read_some(positions: range) -> list[tuple[NDArray[np.uint8], bytes] | str]:
        # Read all before decoding: out of order, a shard's row group is read again from its start.
        raw = [read_or_reason(items, position) for position in positions]
        return [_reduce(image, how) for image in raw]

    with work.open("pixels.bin") as pixels, work.open(RECORDS) as records:
        position, written, broken = _noted(work, pixels, records)
        # Images and pixel bytes of whole blocks, consistent whenever an interrupt comes.
        reached = (position, written)

        def keep() -> None:
            images, size = reached
            reasons = [pair for pair in broken if pair[0] < images]
            work.keep({"images": images, "bytes": size, "broken": reasons}, pixels, records)

        progress(position)
        try:
            for block in in_order(read_some, blocks(len(items), BLOCK, position), workers):
                for image in block:
                    if isinstance(image, str):
                        broken.append((position, image))
                        records.write(bytes(RECORD.itemsize))
                    else:
                        array, own = image
                        written += pixels.write(array.data)
                        records.write(own + np.array(array.shape[:2], "<i4").tobytes())
                    position += 1
                reached = (position, written)
                progress(len(block))
                if work.pace.due():
                    keep()
        except KeyboardInterrupt:
            keep()
            raise
        keep()
        shapes, content = _summed(records, items.labels)
    np.save(work.folder / "shapes.npy", shapes, allow_pickle=False)
    write_json(
        work.folder / "meta.json",
        {"kind": "store", "side": how.side, "content": content, "broken": broken},
    )


def _reduce(raw: Raw | str, how: Reduction) -> tuple[NDArray[np.uint8], bytes] | str:
    """Return an image's pixels and their hash, or the reason why it cannot be read."""
    if isinstance(raw, str):
        return raw
    try:
        image = decode(raw, how.side, how.bits) if isinstance(raw, bytes) else Image.fromarray(raw)
        pixels = np.ascontiguousarray(reduce(image, how))
        return pixels, hashlib.sha256(pixels.data).digest()
    except ImageError as error:
        return str(error)


def _noted(
    work: Building, pixels: IO[bytes], records: IO[bytes]
) -> tuple[int, int, list[tuple[int, str]]]:
    """Return the number of images done, the bytes of their pixels, and the broken images.

    The files are truncated to these sizes; if one is shorter, both start afresh.
    """
    done, written, broken = 0, 0, []
    for note in work.notes():
        ends = ((pixels, note["bytes"]), (records, note["images"] * RECORD.itemsize))
        if all(os.fstat(file.fileno()).st_size >= end for file, end in ends):
            done, written, broken = note["images"], note["bytes"], note["broken"]
    for file, end in ((pixels, written), (records, done * RECORD.itemsize)):
        file.truncate(end)
        file.seek(end)
    return done, written, broken


def _summed(records: IO[bytes], labels: NDArray[np.int64]) -> tuple[NDArray[np.int32], str]:
    """Return the shapes of all images, 0 x 0 if broken, and a fingerprint of the others."""
    shapes = np.empty((len(labels), 2), dtype=np.int32)
    digest = hashlib.sha256()
    records.seek(0)
    for rows in blocks(len(labels), RECORDS_AT_ONCE):
        part = np.frombuffer(records.read(len(rows) * RECORD.itemsize), RECORD)
        shapes[rows.start : rows.stop] = part["shape"]
        digest.update(part["own"][part["shape"][:, 0] > 0].tobytes())
    digest.update(labels[shapes[:, 0] > 0].tobytes())
    return shapes, digest.hexdigest()


def load(path: Path, items: Items) -> ImageStore:
    """Open a store; labels, hashes, names and groups come from `items`, which has its content."""
    meta = json.loads((path / "meta.json").read_text())
    shapes = np.load(path / "shapes.npy", allow_pickle=False)
    readable = np.flatnonzero(shapes[:, 0])
    shapes = shapes[readable]
    whole = items if len(readable) == len(items) else items.subset(readable)
    ends = np.cumsum(shapes.astype(np.int64).prod(axis=1) * 3)
    return ImageStore(
        # An empty file cannot be mapped.
        pixels=np.memmap(path / "pixels.bin", dtype=np.uint8, mode="r")
        if len(readable)
        else np.zeros(0, np.uint8),
        offsets=np.concatenate([[0], ends[:-1]]).astype(np.int64),
        shapes=shapes,
        all_labels=whole.labels,
        all_hashes=whole.hashes,
        # Not kept in the store: its key is content alone, which may have other names elsewhere.
        all_names=whole.names,
        all_groups=whole.groups,
        rows=np.arange(len(readable)),
        side=int(meta["side"]),
        content=str(meta["content"]),
        broken=tuple((items.names[at], str(reason)) for at, reason in meta["broken"]),
    )
