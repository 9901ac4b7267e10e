"""DATA, one name or path, to lists of labelled images that can be read one by one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, suggest
from ..image.decode import SUFFIXES
from .download import fetch_from_hub

NAMED = ("cifar100", "digits")
VALIDATION_NAMES = ("val", "valid", "validation")

Raw = bytes | NDArray[np.uint8]


@dataclass(frozen=True)
class Items:
    """Labelled images that are read when asked for.

    names: one per image, for messages and lists. labels: class positions, (n,) int64.
    hashes: SHA-256 of each image as stored, so exact duplicates share one.
    read: position -> encoded bytes, or a (height, width, 3) uint8 array.
    """

    names: Sequence[str]
    labels: NDArray[np.int64]
    hashes: Sequence[bytes]
    read: Callable[[int], Raw]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: NDArray[np.int64]) -> Items:
        """Return the images at `rows`, in that order."""
        return Items(
            names=[self.names[row] for row in rows],
            labels=self.labels[rows],
            hashes=[self.hashes[row] for row in rows],
            read=lambda position: self.read(int(rows[position])),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Name the content: every image's hash and label, in order."""
        digest = hashlib.sha256(self.labels.tobytes())
        for value in self.hashes:
            digest.update(value)
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Source:
    """What lies at DATA.

    `open_part` reads the list of one part; nothing of a part is touched before, so a run that
    never asks for 'test' never opens it. `mirror_safe` is False where a mirrored image means
    something else, as for digits.
    """

    name: str
    classes: tuple[str, ...]
    parts: frozenset[str]
    open_part: Callable[[str], Items]
    mirror_safe: bool = True
    notes: tuple[str, ...] = ()


def open_source(data: str, data_dir: Path | None = None) -> Source:
    """Find out what DATA is and list its classes and parts.

    Raises DataError when nothing is there or what is there can not be trained on.
    """
    if data == "digits":
        return _digits()
    if data == "cifar100":
        folder = data_dir if data_dir is not None else fetch_from_hub("uoft-cs/cifar100")
        return replace(_from_folder(folder), name="cifar100")
    path = Path(data) if data_dir is None else data_dir / data
    if not path.exists():
        raise DataError(
            f"no data at '{data}': no such file or folder, and not a known data set "
            f"({suggest(data, NAMED)})"
        )
    return _from_folder(path)


def _from_folder(path: Path) -> Source:
    if not path.is_dir():
        raise DataError(
            f"no data at '{path}': expected a folder of class folders or of parquet shards"
        )
    shards = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    return _parquet(path, shards) if shards else _class_folders(path)


# --- parquet shards in the Hugging Face image layout -------------------------------------------


def _parquet(path: Path, shards: list[Path]) -> Source:
    parts: dict[str, list[Path]] = {}
    for shard in shards:
        word = re.split(r"[-.]", shard.name)[0]
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
        open_part=lambda part: _read_shards(parts[part], image, label, len(classes)),
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
    except (TypeError, KeyError, ValueError, AttributeError) as error:
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
        return pyarrow.parquet.ParquetFile(shard)  # type: ignore[no-untyped-call]
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise DataError(
            f"'{shard}' is not a whole parquet file ({shard.stat().st_size:,} bytes; "
            f"{_first_line(error)}); download it again"
        ) from error


def _read_shards(files: list[Path], image: str, label: str, classes: int) -> Items:
    import pyarrow

    encoded: list[bytes] = []
    labels: list[int] = []
    for shard in files:
        try:
            table = _opened(shard).read(columns=[image, label])
            encoded += [cell["bytes"] or b"" for cell in table.column(image).to_pylist()]
            labels += table.column(label).to_pylist()
        except (pyarrow.lib.ArrowException, OSError, KeyError, TypeError) as error:
            raise DataError(
                f"'{shard}' can not be read ({_first_line(error)}); download it again"
            ) from error
    array = np.asarray(labels, dtype=np.int64)
    if len(array) == 0 or array.min() < 0 or array.max() >= classes:
        raise DataError(f"'{files[0].parent}': labels are not all between 0 and {classes - 1}")
    part = files[0].name.split("-")[0]
    return Items(
        names=[f"{part}/{position}" for position in range(len(array))],
        labels=array,
        hashes=[hashlib.sha256(value).digest() for value in encoded],
        read=encoded.__getitem__,
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


# --- folders of class folders ------------------------------------------------------------------


def _class_folders(path: Path) -> Source:
    folders = _visible_folders(path)
    roots: dict[str, Path] = {}
    if (path / "train").is_dir():
        roots = {"train": path / "train"}
        held_out = [(word, "val") for word in VALIDATION_NAMES] + [("test", "test")]
        roots |= {part: path / word for word, part in held_out if (path / word).is_dir()}
        extra = [folder for folder in folders if path / folder not in roots.values()]
        if extra:
            raise DataError(
                f"'{path}' has train/ and also {', '.join(f'{name}/' for name in extra[:4])}; "
                "expected only train/, val/ and test/ beside each other"
            )
    else:
        roots = {"train": path}
    classes = _visible_folders(roots["train"])
    if not classes:
        raise DataError(
            f"no data at '{path}': expected a folder per class with images in it, as in "
            f"{path.name}/cat/1.jpg, {path.name}/dog/7.jpg"
        )
    if len(classes) == 1:
        raise DataError(
            f"'{roots['train']}' holds one class only ('{classes[0]}'); "
            "a classifier needs at least two"
        )
    listings = {part: _list_images(root, classes) for part, root in roots.items()}
    for name, files in zip(classes, listings["train"][0], strict=True):
        if not files:
            raise DataError(
                f"class folder '{roots['train'] / name}' holds no image; add images or remove it"
            )
    ignored = sum(skipped for _, skipped in listings.values())
    notes = (f"{ignored:,} files are left out: not named like images",) if ignored else ()
    return Source(
        name=path.resolve().name,
        classes=tuple(classes),
        parts=frozenset(roots),
        open_part=lambda part: _read_folder(path, listings[part][0]),
        notes=notes,
    )


def _visible_folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")


def _list_images(root: Path, classes: list[str]) -> tuple[list[list[Path]], int]:
    """Return the image files of each class, sorted, and how many other files were passed over."""
    unknown = [name for name in _visible_folders(root) if name not in classes]
    if unknown:
        raise DataError(
            f"'{root}' has a class that train lacks: '{unknown[0]}'; {suggest(unknown[0], classes)}"
        )
    found: list[list[Path]] = []
    skipped = 0
    for name in classes:
        files: list[Path] = []
        for folder, inner, names in os.walk(root / name):
            inner[:] = sorted(word for word in inner if word[0] != ".")
            for word in sorted(names):
                if word[0] == ".":
                    continue
                if Path(word).suffix.lower() in SUFFIXES:
                    files.append(Path(folder, word))
                else:
                    skipped += 1
        found.append(files)
    return found, skipped


def _read_folder(root: Path, listing: list[list[Path]]) -> Items:
    files = [file for group in listing for file in group]
    return Items(
        names=[file.relative_to(root).as_posix() for file in files],
        labels=np.repeat(np.arange(len(listing)), [len(group) for group in listing]),
        hashes=[_hash_or_name(file) for file in files],
        read=lambda position: files[position].read_bytes(),
    )


def _hash_or_name(file: Path) -> bytes:
    """A file that can not be opened keeps a hash of its own; the store lists it as broken."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return hashlib.sha256(os.fsencode(file)).digest()


# --- the digits that come with scikit-learn ----------------------------------------------------


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 0..16 -> 0..255
    images = np.repeat(grey[..., None], 3, axis=-1)  # (1797, 8, 8, 3)
    items = Items(
        names=[f"digits/{position}" for position in range(len(images))],
        labels=bunch.target.astype(np.int64),
        hashes=[hashlib.sha256(image.tobytes()).digest() for image in images],
        read=images.__getitem__,
    )
    return Source(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        parts=frozenset({"train"}),
        open_part=lambda part: items,
        mirror_safe=False,
    )
