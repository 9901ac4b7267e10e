"""CIFAR-10 and CIFAR-100: downloaded, or in any form in which they are published.

Krizhevsky 2009, Learning multiple layers of features from tiny images. The binary archive holds
records of one label byte (CIFAR-100: two, coarse and fine) and 3 x 32 x 32 bytes of red, green and
blue planes; the Python archive the same as pickles, which are read as data (pickles.py). The
superclasses that the coarse labels stand for are in superclasses.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from ...core.text import command_line, counted
from ...net.hub import endpoint, fetch_shards
from ...net.published import MIRROR, FetchError, Remote, Tell, fetch
from ..items import Items, Source, sha256_rows
from ..names import Names
from .folders import from_class_folders
from .members import read_members
from .pickles import PickleRefusedError, read_pickle
from .shards import from_shards

PIXELS = 3 * 32 * 32
LARGEST_EXTRA = 1 << 24  # bytes of names and labels beside the pixels

Rows = tuple[NDArray[np.uint8], NDArray[np.int64]]  # (n, 3, 32, 32) pixels, (n,) labels


@dataclass(frozen=True)
class Form:
    """A published form: its archive's stem, the folder inside, and the files of each part."""

    stem: str
    folder: str
    names: str
    parts: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Layout:
    """One of the two data sets. label_key, names_key: in its pickles."""

    name: str
    repository: str
    archive: Remote
    binary: Form
    python: Form
    classes: int
    counts: dict[str, int]
    label_bytes: int
    label_key: str
    names_key: str


_BASE = "https://www.cs.toronto.edu/~kriz"
_COUNTS = {"train": 50_000, "test": 10_000}
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

LAYOUTS = {
    "cifar100": Layout(
        name="cifar100",
        repository="uoft-cs/cifar100",
        archive=Remote(
            _BASE,
            "cifar-100-binary.tar.gz",
            "md5:03b5dce01913d631647c71ecec9e9cb8",
            168_513_733,
        ),
        binary=Form(
            "cifar-100-binary",
            "cifar-100-binary",
            "fine_label_names.txt",
            {"train": ("train.bin",), "test": ("test.bin",)},
        ),
        python=Form(
            "cifar-100-python",
            "cifar-100-python",
            "meta",
            {"train": ("train",), "test": ("test",)},
        ),
        classes=100,
        counts=_COUNTS,
        label_bytes=2,
        label_key="fine_labels",
        names_key="fine_label_names",
    ),
    "cifar10": Layout(
        name="cifar10",
        repository="uoft-cs/cifar10",
        archive=Remote(
            _BASE, "cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530", 170_052_171
        ),
        binary=Form(
            "cifar-10-binary",
            "cifar-10-batches-bin",
            "batches.meta.txt",
            {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
        ),
        python=Form(
            "cifar-10-python",
            "cifar-10-batches-py",
            "batches.meta",
            {"train": _BATCHES, "test": ("test_batch",)},
        ),
        classes=10,
        counts=_COUNTS,
        label_bytes=1,
        label_key="labels",
        names_key="label_names",
    ),
}


def open_cifar(name: str, data_dir: Path | None, tell: Tell) -> Source:
    """Return 'cifar100' or 'cifar10' from `data_dir`, or downloaded; `tell` says which way.

    Raises DataError with the ways on when it cannot be had, or is not what it should be.
    """
    layout = LAYOUTS[name]
    source = _download(layout, tell) if data_dir is None else _open_local(layout, data_dir, tell)
    if len(source.classes) != layout.classes:
        raise DataError(
            f"'{data_dir}' is not {name}: it has {counted(len(source.classes), 'class')}, "
            f"{name} has {layout.classes}"
        )
    return replace(source, name=name)


# --- the ways to it ------------------------------------------------------------------------------


def _download(layout: Layout, tell: Tell) -> Source:
    name, archive = layout.name, layout.archive
    missed = ""
    if not archive.path.is_file():  # what was downloaded before is used before anything else
        folder: Path | None = None
        try:
            folder = fetch_shards(layout.repository)
        except FetchError as error:
            missed = str(error)
        if folder is not None:
            tell(f"{name}: from the Hugging Face hub, {layout.repository}")
            return _from_shards(folder)
        tell(f"{name}: not from {endpoint()} ({missed}); trying the published archive")
    try:
        path = fetch(archive, tell)
    except FetchError as error:
        tried = f"neither from {endpoint()} ({missed}) nor " if missed else ""
        raise DataError(
            f"'{name}' could not be downloaded, {tried}from {archive.url} ({error}); give a local "
            f"copy with --data-dir, a mirror with the variable HF_ENDPOINT or {MIRROR}, "
            "or try the embedded data: thawnet train digits"
        ) from error
    tell(f"{name}: from the published archive, {path}")
    return _from_form(layout, layout.binary, path)


def _open_local(layout: Layout, path: Path, tell: Tell) -> Source:
    if not path.exists():
        raise DataError(f"--data-dir '{path}': no such file or folder")
    folder = _shard_folder(path)
    if folder is not None:
        tell(f"{layout.name}: from the parquet shards in {folder}")
        return _from_shards(folder)
    for form in (layout.binary, layout.python):
        place = _find(form, path)
        if place is not None:
            tell(f"{layout.name}: from {place}")
            return _from_form(layout, form, place)
    if (path / "train").is_dir():
        tell(f"{layout.name}: from the class folders in {path}")
        return from_class_folders(path)
    raise DataError(
        f"--data-dir '{path}' holds no {layout.name}: expected parquet shards (train-*.parquet, "
        f"test-*.parquet), {layout.binary.stem}.tar.gz, {layout.python.stem}.tar.gz, what one of "
        "them unpacks to, or train/<class>/* and test/<class>/*; for images of your own: "
        + command_line("thawnet", "train", path)
    )


def _shard_folder(path: Path) -> Path | None:
    """Return the folder of the shards: `path`, or one below it as the hub's repositories have."""
    found = sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet"))
    return found[0].parent if found else None


def _from_shards(folder: Path) -> Source:
    return from_shards(folder, sorted(folder.glob("*.parquet")))


def _find(form: Form, path: Path) -> Path | None:
    """Return the archive or folder at or right below `path` that has this form."""
    if path.is_file():
        return path if path.name.startswith(form.stem) else None
    for folder in (path, path / form.folder):
        if all((folder / name).is_file() for name in (form.names, *form.parts["train"])):
            return folder
    archives = sorted(path.glob(f"{form.stem}*.tar*")) + sorted(path.glob(f"{form.stem}*.tgz"))
    return next((archive for archive in archives if archive.is_file()), None)


# --- what is in it -------------------------------------------------------------------------------


def _from_form(layout: Layout, form: Form, path: Path) -> Source:
    content = read_members(path, (form.names,), LARGEST_EXTRA)[0]
    classes = _class_names(layout, form, path, content)
    return Source(
        name=layout.name,
        classes=classes,
        parts=frozenset(form.parts),
        open_part=partial(_open_part, layout, form, path),
    )


def _class_names(layout: Layout, form: Form, path: Path, content: bytes) -> tuple[str, ...]:
    where = f"'{path}': {form.names}"
    if form is layout.binary:
        words: Any = content.split(b"\n")
    else:
        words = _unpickled(where, content).get(layout.names_key)
    if not isinstance(words, list) or not all(isinstance(word, (bytes, str)) for word in words):
        raise DataError(f"{where} has no list '{layout.names_key}'; download it again")
    texts = (
        word.decode("latin-1") if isinstance(word, bytes) else word
        for word in words
        if word.strip()
    )
    names = tuple(text.strip() for text in texts)
    if len(names) != layout.classes or len(set(names)) != len(names):
        raise DataError(
            f"{where} names {counted(len(set(names)), 'class')}, expected {layout.classes}; "
            "download it again"
        )
    if not all(name.isprintable() for name in names):
        raise DataError(f"{where} holds names with control characters; download it again")
    return names


def _open_part(layout: Layout, form: Form, path: Path, part: str) -> Items:
    files = form.parts[part]
    count = layout.counts[part] // len(files)
    contents = read_members(path, files, count * (PIXELS + layout.label_bytes) + LARGEST_EXTRA)
    read = _binary_rows if form is layout.binary else _pickled_rows
    rows = [
        read(layout, f"'{path}': {name}", content, count)
        for name, content in zip(files, contents, strict=True)
    ]
    planes, labels = rows[0]
    if len(rows) > 1:
        planes = np.concatenate([pixels for pixels, _ in rows])
        labels = np.concatenate([labels for _, labels in rows])
    if labels.min() < 0 or labels.max() >= layout.classes:
        raise DataError(
            f"'{path}': labels of {part} are not all between 0 and {layout.classes - 1}"
        )
    images = planes.transpose(0, 2, 3, 1)  # (n, 3, 32, 32) -> (n, 32, 32, 3), a view
    return Items(
        names=Names(f"{part}/{position}" for position in range(len(labels))),
        labels=labels,
        hashes=sha256_rows(image.tobytes() for image in images),
        read=lambda position: np.ascontiguousarray(images[position]),
    )


def _binary_rows(layout: Layout, where: str, content: bytes, count: int) -> Rows:
    record = layout.label_bytes + PIXELS
    if len(content) != count * record:
        raise DataError(
            f"{where} is {len(content):,} bytes, expected {count * record:,} ({count:,} records "
            f"of {record}); download it again"
        )
    table = np.frombuffer(content, dtype=np.uint8).reshape(count, record)
    labels = table[:, layout.label_bytes - 1].astype(np.int64)  # CIFAR-100: coarse, then fine
    return table[:, layout.label_bytes :].reshape(count, 3, 32, 32), labels


def _pickled_rows(layout: Layout, where: str, content: bytes, count: int) -> Rows:
    table = _unpickled(where, content)
    pixels, labels = table.get("data"), table.get(layout.label_key)
    if not isinstance(pixels, np.ndarray) or pixels.shape != (count, PIXELS):
        found = pixels.shape if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(
            f"{where} has no 'data' of {count:,} x {PIXELS} bytes (found {found}); "
            "download it again"
        )
    if (
        not isinstance(labels, list)
        or len(labels) != count
        or not all(type(label) is int and 0 <= label < layout.classes for label in labels)
    ):
        raise DataError(
            f"{where} has no '{layout.label_key}' of {count:,} numbers between 0 and "
            f"{layout.classes - 1}; download it again"
        )
    return pixels.reshape(count, 3, 32, 32), np.asarray(labels, dtype=np.int64)


def _unpickled(where: str, content: bytes) -> dict[str, Any]:
    try:
        value = read_pickle(content)
    except PickleRefusedError as error:
        raise DataError(
            f"{where} is refused: {error}, where CIFAR's pickles hold only lists and arrays; "
            "download it again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{where} holds a {type(value).__name__}, expected a dict")
    return value
