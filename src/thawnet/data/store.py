"""The image store: every image decoded and reduced once, uint8 on disk, memory-mapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError, ImageError
from ..files import cache_folder, fingerprint, new_folder, write_json
from ..image.decode import decode
from ..image.preprocess import reduce
from .items import Items

VERSION = 2
CHUNK = 1024  # images decoded between two progress reports

Progress = Callable[[int], None]


@dataclass(frozen=True)
class ImageStore:
    """Images of one short side, some of them, in a given order.

    pixels: flat uint8, memory-mapped. offsets: first byte of each image. shapes: (n, 2) height
    and width. labels: (n,) int64. hashes: (n,) of 32 bytes. names: as the source calls them.
    rows: the images meant, in order. broken: what could not be read, as (name, reason).
    """

    pixels: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    shapes: NDArray[np.int32]
    all_labels: NDArray[np.int64]
    all_hashes: NDArray[np.bytes_]
    all_names: Sequence[str]
    rows: NDArray[np.int64]
    side: int
    content: str
    broken: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class positions, (n,) int64."""
        return self.all_labels[self.rows]

    @property
    def hashes(self) -> list[bytes]:
        """SHA-256 of each image as its source holds it."""
        return [value.tobytes() for value in self.all_hashes[self.rows]]

    @property
    def names(self) -> list[str]:
        """The name of each image in its source."""
        return [self.all_names[row] for row in self.rows]

    @cached_property
    def fingerprint(self) -> str:
        """Name the images meant: the store's content and the rows taken from it."""
        return fingerprint([self.content, hashlib.sha256(self.rows.tobytes()).hexdigest()])

    def subset(self, rows: NDArray[np.int64]) -> ImageStore:
        """Return the images at `rows` of this store, in that order, sharing its memory."""
        return replace(self, rows=self.rows[rows])

    @cached_property
    def _squares(self) -> NDArray[np.uint8] | None:
        """All images as one array if all are square, which lets numpy gather a batch at once."""
        if (self.shapes == self.side).all():
            return self.pixels.reshape(-1, self.side, self.side, 3)
        return None

    def batch(
        self, positions: NDArray[np.int64], along: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """Return (n, side, side, 3): squares cut from the images at `positions`.

        along: where on the longer side to cut, 0 (first) to 1 (last); the middle without it.
        """
        rows = self.rows[positions]
        if self._squares is not None:
            return self._squares[rows]
        side = self.side
        batch = np.empty((len(rows), side, side, 3), dtype=np.uint8)
        for place, row in enumerate(rows):
            height, width = self.shapes[row]
            start = self.offsets[row]
            image = self.pixels[start : start + height * width * 3].reshape(height, width, 3)
            cut = 0.5 if along is None else float(along[place])
            top, left = int((height - side) * cut), int((width - side) * cut)
            batch[place] = image[top : top + side, left : left + side]
        return batch


def typical_short_side(items: Items) -> int:
    """Return the median short side of up to 100 images spread over the list."""
    shorts: list[int] = []
    for position in np.unique(np.linspace(0, len(items) - 1, 100).astype(int)):
        try:
            shorts.append(min(_image(items.read(int(position))).size))
        except (ImageError, OSError):
            continue
    if not shorts:
        raise DataError(
            f"none of the first images can be read, for example '{items.names[0]}'; "
            "expected JPEG, PNG, WebP, BMP, GIF, TIFF or PPM files"
        )
    return int(np.median(shorts))


def open_store(
    items: Items, classes: Sequence[str], side: int, progress: Progress, workers: int
) -> ImageStore:
    """Return the store of these images at this short side, building it in the cache if need be.

    `progress` is called with how many more images are done. Raises DataError when a class loses
    every image, RunError when the cache can not be written.
    """
    key = fingerprint([VERSION, items.fingerprint, side, PIL.__version__])
    path = cache_folder() / "stores" / key
    if not path.is_dir():
        _build(path, items, side, progress, workers)
    store = _load(path, items.names)
    missing = set(items.labels.tolist()) - set(store.all_labels.tolist())
    if missing:
        raise DataError(
            f"no image of class '{classes[min(missing)]}' can be read; the first that failed: "
            f"'{store.broken[0][0]}' ({store.broken[0][1]})"
        )
    return store


def _image(raw: bytes | NDArray[np.uint8]) -> Image.Image:
    return decode(raw) if isinstance(raw, bytes) else Image.fromarray(raw)


def _build(path: Path, items: Items, side: int, progress: Progress, workers: int) -> None:
    def read(position: int) -> NDArray[np.uint8] | str:
        try:
            return reduce(_image(items.read(position)), side)
        except ImageError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    shapes: list[tuple[int, int]] = []
    kept: list[int] = []
    broken: list[tuple[str, str]] = []
    digest = hashlib.sha256()
    with new_folder(path) as folder, ThreadPoolExecutor(workers) as pool:
        with (folder / "pixels.bin").open("wb") as file:
            for chunk in _chunks(len(items)):
                for position, pixels in zip(chunk, pool.map(read, chunk), strict=True):
                    if isinstance(pixels, str):
                        broken.append((items.names[position], pixels))
                        continue
                    data = pixels.tobytes()
                    file.write(data)
                    digest.update(data)
                    shapes.append((pixels.shape[0], pixels.shape[1]))
                    kept.append(position)
                progress(len(chunk))
        labels = items.labels[kept]
        digest.update(labels.tobytes())
        arrays: dict[str, NDArray[Any]] = {
            "labels": labels,
            "shapes": np.asarray(shapes, dtype=np.int32).reshape(-1, 2),
            "hashes": np.asarray([items.hashes[position] for position in kept], dtype="V32"),
            "kept": np.asarray(kept, dtype=np.int64),
        }
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        write_json(
            folder / "meta.json",
            {"kind": "store", "side": side, "content": digest.hexdigest(), "broken": broken},
        )


def _chunks(count: int) -> Iterator[range]:
    for start in range(0, count, CHUNK):
        yield range(start, min(start + CHUNK, count))


def _load(path: Path, names: Sequence[str]) -> ImageStore:
    meta = json.loads((path / "meta.json").read_text())
    shapes, labels, hashes, kept = (
        np.load(path / f"{name}.npy", allow_pickle=False)
        for name in ("shapes", "labels", "hashes", "kept")
    )
    sizes = shapes.astype(np.int64).prod(axis=1) * 3
    return ImageStore(
        pixels=np.memmap(path / "pixels.bin", dtype=np.uint8, mode="r"),
        offsets=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        shapes=shapes,
        all_labels=labels,
        all_hashes=hashes,
        # Not kept in the store: it is named by content alone, and content may lie elsewhere too.
        all_names=[names[position] for position in kept],
        rows=np.arange(len(labels)),
        side=int(meta["side"]),
        content=str(meta["content"]),
        broken=tuple((str(name), str(reason)) for name, reason in meta["broken"]),
    )
