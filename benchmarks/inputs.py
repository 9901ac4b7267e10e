"""Inputs of the benchmarks: image sets of various sizes, and weights in Keras's layout."""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits

from thawnet.model.keras_layers import keras_layers

ROWS = 20_000  # in a shard
DISTINCT = 300  # photos; the others repeat them with another comment, and so another hash


def shifted(png: bytes, step: int) -> bytes:
    """Return an image rolled along its diagonal by `step` pixels."""
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.roll(np.asarray(image), (step, step), axis=(0, 1))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_shards(cifar: Path, folder: Path, count: int, test: int | None = None) -> None:
    """Write parquet shards of `count` training images of CIFAR-100, and of its test part.

    test: test images per shard; None for all. Beyond 50,000, the training images repeat, each time
    shifted by one more pixel, so that no two are equal.
    """
    folder.mkdir(parents=True)
    for shard in cifar.glob("test-*.parquet"):
        pq.write_table(pq.read_table(shard)[:test], folder / shard.name)
    whole = pa.concat_tables([pq.read_table(path) for path in sorted(cifar.glob("train-*"))])
    files = -(-count // ROWS)
    for number in range(files):
        rows = np.arange(number * ROWS, min((number + 1) * ROWS, count))
        part = whole.take(rows % len(whole))
        times = rows // len(whole)
        if times.any():
            images = [
                {"bytes": shifted(image["bytes"], int(step)), "path": None}
                for image, step in zip(part["img"].to_pylist(), times, strict=True)
            ]
            column = pa.array(images, type=part.schema.field("img").type)
            part = part.set_column(0, part.schema.field("img"), column)
        pq.write_table(part, folder / f"train-{number:05d}-of-{files:05d}.parquet")


def write_classes(cifar: Path, folder: Path, each: int) -> Path:
    """Write `each` training images of each class of CIFAR-100, and its test part, as PNG files.

    Returns the folder, which holds train/ and test/. The selection is always the same, and a
    smaller one is part of a larger one.
    """
    parts = {
        part: pa.concat_tables([pq.read_table(path) for path in sorted(cifar.glob(f"{part}-*"))])
        for part in ("train", "test")
    }
    labels = parts["train"]["fine_label"].to_numpy()
    order = np.random.default_rng(0).permutation(len(labels))
    rows = [order[labels[order] == label][:each] for label in np.unique(labels)]
    parts["train"] = parts["train"].take(np.concatenate(rows))
    for part, table in parts.items():
        pairs = zip(table["img"].to_pylist(), table["fine_label"].to_pylist(), strict=True)
        for number, (cell, label) in enumerate(pairs):
            _place(folder / part / f"{label:02d}", number).write_bytes(cell["bytes"])
    return folder


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's 1,797 digits, 8 px a side, as PNG files; every tenth is for testing.

    Returns the folder, which holds train/ and test/.
    """
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    for number, row in enumerate(order):
        part = "test" if number % 10 == 0 else "train"
        pixels = (digits.images[row] * 255 / 16).round().astype(np.uint8)
        place = _place(folder / part / str(digits.target[row]), number)
        Image.fromarray(pixels).save(place)
    return folder


def _place(folder: Path, number: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{number:05d}.png"


def write_photos(cifar: Path, folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write CIFAR-100's first test images as JPEGs of (width, height); return the folder.

    Enlarged images get noise; without it they would decode faster than photos.
    """
    folder.mkdir(parents=True)
    (shard,) = cifar.glob("test-*.parquet")
    photos = []
    for number, cell in enumerate(pq.read_table(shard)["img"][:DISTINCT].to_pylist()):
        image = Image.open(io.BytesIO(cell["bytes"])).convert("RGB")
        if image.size != size:
            smooth = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)
            noisy = smooth + np.random.default_rng(number).normal(0, 6, smooth.shape)
            image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        photos.append(file.getvalue())
    for number, photo in enumerate(itertools.islice(itertools.cycle(photos), count)):
        path = folder / f"{number:05d}.jpg"
        comment = str(path).encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        path.write_bytes(photo[:2] + segment + photo[2:])
    return folder


def write_few(photos: Path, folder: Path, tested: int, learned: int, seed: int) -> Path:
    """Link `tested` photos of each class into test/ and `learned` others into train/.

    photos: a folder of class folders. For one seed, the test photos are the same for every
    `learned`, and a smaller training set is part of a larger one. Returns the folder.
    """
    draw = random.Random(seed)
    for own in sorted(path for path in photos.iterdir() if path.is_dir()):
        files = sorted(own.iterdir())
        draw.shuffle(files)
        parts = {"test": files[:tested], "train": files[tested : tested + learned]}
        for part, chosen in parts.items():
            place = folder / part / own.name
            place.mkdir(parents=True)
            for file in chosen:
                (place / file.name).symlink_to(file)
    return folder


def write_keras_weights(weights: Path, path: Path) -> None:
    """Convert MobileNetV2's weights from timm's layout to that of Keras's layers.

    The arrays are LAYER/NUMBER, in the order of a layer's weights, and `epsilon`, that of the
    batch-norms.
    """
    values: dict[str, Any] = {}
    with safe_open(weights, framework="np") as file:
        values["epsilon"] = float((file.metadata() or {}).get("bn_eps", 1e-3))
        for keras, timm in keras_layers():
            if timm is None:
                continue
            kernel = file.get_tensor(f"{timm}.weight").astype(np.float32)
            if kernel.ndim == 4:  # (out, in, 3, 3)
                depthwise = kernel.shape[1] == 1
                arrays = [kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]
            else:
                names = ("bias", "running_mean", "running_var")
                rest = [file.get_tensor(f"{timm}.{name}").astype(np.float32) for name in names]
                arrays = [kernel, *rest]
            values |= {f"{keras}/{number}": array for number, array in enumerate(arrays)}
    np.savez(path, **values)
