"""DATA, one name or path, to a source of labelled images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ...core.errors import DataError, suggest
from ...net.published import Tell
from ..items import Source, Watch, unwatched
from ..reading import AS_IT_IS, Reading
from . import archives
from .arrays import digits
from .cifar import LAYOUTS, open_cifar
from .folders import from_class_folders, is_folder, visible
from .shards import from_shards
from .superclasses import with_superclasses
from .table import from_table

NAMED = (*LAYOUTS, "digits")
DATA_FILES = (".csv", ".parquet")  # that say what the images beside them are, or hold them


def open_source(
    data: str,
    data_dir: Path | None = None,
    watch: Watch = unwatched,
    tell: Tell = lambda text: None,
    asked: Reading = AS_IT_IS,
) -> Source:
    """Return the source at DATA: a path, or the name of a data set, which is downloaded if needed.

    watch: opens a progress bar. tell: receives lines for a person, such as where the data came
    from. asked: how it is read where its form leaves a choice. Raises DataError when nothing is
    there or it cannot be trained on.
    """
    return with_superclasses(_open(data, data_dir, watch, tell, asked))


def _open(data: str, data_dir: Path | None, watch: Watch, tell: Tell, asked: Reading) -> Source:
    if data == "digits":
        return digits()
    if data in LAYOUTS:
        return open_cifar(data, data_dir, watch, tell)
    path = Path(data) if data_dir is None else data_dir / data
    if not os.path.exists(path):  # noqa: PTH110 - a name that no file can have raises in pathlib
        raise DataError(
            f"no data at '{data}': no such file or folder, and not a known data set "
            f"({suggest(data, NAMED)})"
        )
    if path.is_dir():
        return _from_folder(path, watch)
    if path.suffix.lower() == ".csv":
        return from_table(path, watch, asked)
    if archives.is_archive(path):
        return _from_archive(path, watch, tell, asked)
    raise DataError(
        f"no data at '{path}': expected a folder of class folders or of parquet shards, a zip or "
        "tar of one, or a .csv"
    )


def _from_folder(path: Path, watch: Watch) -> Source:
    shards = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    return from_shards(path, shards) if shards else from_class_folders(path, watch)


def _from_archive(path: Path, watch: Watch, tell: Tell, asked: Reading) -> Source:
    """Return the source in an archive: that of the one table at the top, if any, or of folders."""
    root = archives.unpack(path, watch, tell)
    try:
        # A single top folder is skipped, unless it holds nothing but images: then it is a class.
        while len(inside := visible(root)) == 1 and is_folder(inside[0]):
            deeper = visible(root / inside[0].name)
            if not any(is_folder(entry) or entry.name.endswith(DATA_FILES) for entry in deeper):
                break
            root = root / inside[0].name
        tables = [entry.name for entry in inside if entry.name.endswith(".csv")]
        if len(tables) == 1:
            source = from_table(root / tables[0], watch, asked, confined=True)
        else:
            source = _from_folder(root, watch)
    except DataError as error:
        raise DataError(f"'{path}', unpacked: {error}") from error
    return replace(source, name=archives.stem(path))
