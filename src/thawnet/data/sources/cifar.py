"""CIFAR-10 and CIFAR-100: downloaded, or read from any form in which they are published.

Krizhevsky 2009, Learning multiple layers of features from tiny images. The binary archive holds
records of one label byte (CIFAR-100: two, coarse and fine) and 3 x 32 x 32 bytes of red, green and
blue planes. The Python archive holds the same as pickles, which are read as data (pickles.py). The
superclasses behind the coarse labels are in superclasses.py.
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
from ...net.http import FetchError
from ...net.hub import endpoint, fetch_shards
from ...net.published import MIRROR, Remote, Tell, fetch
from ..items import Items, Source, Watch
from .archives import is_archive, unpack
from .arrays import array_items
from .folders import from_class_folders
from .pickles import PickleRefusedError, read_pickle
from .shards import from_shards

COUNTS = {"train": 50_000, "test": 10_000}
PIXELS = 3 * 32 * 32
LARGEST_EXTRA = 1 << 24  # bytes of names and labels beside the pixels


@dataclass(frozen=True)
class Form:
    """A form in which a data set is published."""

    stem: str
    """The archive's name, without its suffix."""
    names: str
    """The file that lists the classes."""
    parts: dict[str, tuple[str, ...]]
    """The files of each part."""


@dataclass(frozen=True)
class Layout:
    """One of the two data sets."""

    name: str
    classes: int
    archive: Remote
    """The published binary archive."""
    binary: Form
    python: Form
    label_bytes: int
    """Label bytes in each binary record; the last one is the label."""
    label_key: str
    """Key of the labels in the pickles."""
    names_key: str
    """Key of the class names in their pickle."""


_BASE = "https://www.cs.toronto.edu/~kriz"
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

LAYOUTS = {
    "cifar100": Layout(
        name="cifar100",
        classes=100,
        archive=Remote(
            _BASE,
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            168_513_733,
        ),
        binary=Form(
            "cifar-100-binary",
            "fine_label_names.txt",
            {"train": ("train.bin",), "test": ("test.bin",)},
        ),
        python=Form("cifar-100-python", "meta", {"train": ("train",), "test": ("test",)}),
        label_bytes=2,
        label_key="fine_labels",
        names_key="fine_label_names",
    ),
    "cifar10": Layout(
        name="cifar10",
        classes=10,
        archive=Remote(
            _BASE, "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170_052_171
        ),
        binary=Form(
            "cifar-10-binary",
            "batches.meta.txt",
            {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
        ),
        python=Form(
            "cifar-10-python", "batches.meta", {"train": _BATCHES, "test": ("test_batch",)}
        ),
        label_bytes=1,
        label_key="labels",
        names_key="label_names",
    ),
}


def open_cifar(name: str, data_dir: Path | None, watch: Watch, tell: Tell) -> Source:
    """Return 'cifar100' or 'cifar10', from `data_dir` or downloaded; `tell` gets its origin.

    Raises DataError, with ways forward, if it cannot be obtained or is not what it should be.
    """
    layout = LAYOUTS[name]
    if data_dir is None:
        source = _download(layout, watch, tell)
    else:
        source = _open_local(layout, data_dir, watch, tell)
    classes = len(set(source.classes))
    if classes != layout.classes:
        raise DataError(
            f"'{data_dir or 'the download'}' is not {name}: it has {counted(classes, 'class')}, "
            f"{name} has {layout.classes}; give another --data-dir"
        )
    return replace(source, name=name)


# --- obtaining it ---------------------------------------------------------------------------------


def _download(layout: Layout, watch: Watch, tell: Tell) -> Source:
    name, archive = layout.name, layout.archive
    missed = ""
    if not archive.path.is_file():  # an earlier download is used first
        repository = f"uoft-cs/{name}"
        try:
            folder = fetch_shards(repository)
        except FetchError as error:
            missed = str(error)
            tell(f"{name}: not from {endpoint()} ({missed}); trying the published archive")
        else:
            tell(f"{name}: from the Hugging Face hub, {repository}")
            return from_shards(folder, sorted(folder.glob("*.parquet")))
    try:
        path = fetch(archive, tell)
    except FetchError as error:
        tried = f"neither from {endpoint()} ({missed}) nor " if missed else ""
        raise DataError(
            f"'{name}' could not be downloaded, {tried}from {archive.url} ({error}); give a local "
            f"copy with --data-dir, a mirror with the variable HF_ENDPOINT or {MIRROR}, "
            "or try the embedded data: thawnet train digits"
        ) from error
    return _open_local(layout, path, watch, tell)


def _open_local(layout: Layout, path: Path, watch: Watch, tell: Tell) -> Source:
    if not path.exists():
        raise DataError(f"--data-dir '{path}': no such file or folder")
    # The hub's repositories have their shards in a folder.
    shards = sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet"))
    if shards:
        first = shards[0].parent
        tell(f"{layout.name}: from the parquet shards in {first}")
        return from_shards(first, [shard for shard in shards if shard.parent == first])
    forms = (layout.binary, layout.python)
    archives = (file for form in forms for file in sorted(path.glob(f"{form.stem}*")))
    for origin in (path, *filter(is_archive, archives)):
        root = unpack(origin, watch, tell) if origin.is_file() else origin
        for form in forms:
            folder = _folder_of(form, root)
            if folder is not None:
                tell(f"{layout.name}: from {origin}")
                return _from_form(layout, form, folder, origin)
    if (path / "train").is_dir():
        tell(f"{layout.name}: from the class folders in {path}")
        return from_class_folders(path, watch)
    raise DataError(
        f"--data-dir '{path}' holds no {layout.name}: expected parquet shards (train-*.parquet, "
        f"test-*.parquet), {layout.binary.stem}.tar.gz, {layout.python.stem}.tar.gz, what one of "
        "them unpacks to, or train/<class>/* and test/<class>/*; for images of your own: "
        + command_line("thawnet", "train", path)
    )


def _folder_of(form: Form, root: Path) -> Path | None:
    """Return the folder that holds this form: `root`, or one in it; None if there is none."""
    for folder in (root, *sorted(names.parent for names in root.glob(f"*/{form.names}"))):
        if all((folder / name).is_file() for name in (form.names, *form.parts["train"])):
            return folder
    return None


# --- reading it -----------------------------------------------------------------------------------


def _from_form(layout: Layout, form: Form, folder: Path, origin: Path) -> Source:
    """Return the source in `folder`; origin: the path to show in messages."""
    where = f"'{origin}': {form.names}"
    content = _content(folder / form.names, where, LARGEST_EXTRA)
    if form is layout.binary:
        words: Any = content.split(b"\n")
    else:
        words = _unpickled(content, where).get(layout.names_key)
    if not isinstance(words, list) or not all(isinstance(word, (bytes, str)) for word in words):
        raise DataError(f"{where} has no list '{layout.names_key}'; download it again")
    texts = (word.decode("latin-1") if isinstance(word, bytes) else word for word in words)
    return Source(
        name=layout.name,
        classes=tuple(text.strip() for text in texts if text.strip()),
        parts=frozenset(form.parts),
        open_part=partial(_open_part, layout, form, folder, origin),
    )


def _open_part(layout: Layout, form: Form, folder: Path, origin: Path, part: str) -> Items:
    files = form.parts[part]
    count = COUNTS[part] // len(files)
    read = _binary_rows if form is layout.binary else _pickled_rows
    pieces = []
    for name in files:
        where = f"'{origin}': {name}"
        largest = count * (layout.label_bytes + PIXELS) + LARGEST_EXTRA
        pieces.append(read(layout, _content(folder / name, where, largest), where, count))
    planes, labels = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    if labels.min() < 0 or labels.max() >= layout.classes:
        raise DataError(
            f"'{origin}': labels of {part} are not all between 0 and {layout.classes - 1}"
        )
    images = planes.transpose(0, 2, 3, 1)  # (n, 3, 32, 32) -> (n, 32, 32, 3), a view
    return array_items(images, labels, f"{part}/{{}}")


def _content(file: Path, where: str, largest: int) -> bytes:
    try:
        size = file.stat().st_size
        if size > largest:
            raise DataError(
                f"{where} is {size:,} bytes, expected at most {largest:,}; download it again"
            )
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{where} cannot be read ({error.strerror}); download it again") from error


Rows = tuple[NDArray[np.uint8], NDArray[np.int64]]  # (n, 3, 32, 32) pixels, (n,) labels


def _binary_rows(layout: Layout, content: bytes, where: str, count: int) -> Rows:
    record = layout.label_bytes + PIXELS
    if len(content) != count * record:
        raise DataError(
            f"{where} is {len(content):,} bytes, expected {count * record:,} ({count:,} records "
            f"of {record}); download it again"
        )
    table = np.frombuffer(content, dtype=np.uint8).reshape(count, record)
    labels = table[:, layout.label_bytes - 1].astype(np.int64)  # CIFAR-100: coarse, then fine
    return table[:, layout.label_bytes :].reshape(count, 3, 32, 32), labels


def _pickled_rows(layout: Layout, content: bytes, where: str, count: int) -> Rows:
    table = _unpickled(content, where)
    pixels = np.asarray(table.get("data"))
    if pixels.shape != (count, PIXELS):  # read_pickle returns only flat lists and arrays of bytes
        raise DataError(
            f"{where} has no 'data' of {count:,} x {PIXELS} bytes (its shape is {pixels.shape}); "
            "download it again"
        )
    labels = np.asarray(table.get(layout.label_key))
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise DataError(
            f"{where} has no '{layout.label_key}' of {count:,} whole numbers; download it again"
        )
    return pixels.reshape(count, 3, 32, 32), labels


def _unpickled(content: bytes, where: str) -> dict[str, Any]:
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
