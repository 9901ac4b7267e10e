"""DATA, one name or path, to a source of labelled images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ...core.errors import DataError, suggest
from ...net.published import Tell
from ..items import Source, Watch, unwatched
from . import archives
from .arrays import digits
from .cifar import LAYOUTS, open_cifar
from .file_names import from_file_names
from .folders import from_class_folders
from .layout import data_root
from .shards import from_shards
from .superclasses import with_superclasses
from .table import from_table
from .visible import dead_link

NAMED = (*LAYOUTS, "digits")


def open_source(
    data: str,
    data_dir: Path | None = None,
    watch: Watch = unwatched,
    tell: Tell = lambda text: None,
    labels_from_names: bool = False,
) -> Source:
    """Return the source at DATA: a path, or the name of a data set, which is downloaded if needed.

    watch: opens a progress bar. tell: receives lines for a person, such as where the data came
    from. labels_from_names: the images' names say their classes, see file_names.
    Raises DataError when nothing is there or it cannot be trained on.
    """
    return with_superclasses(_open(data, data_dir, watch, tell, labels_from_names))


def _open(data: str, data_dir: Path | None, watch: Watch, tell: Tell, by_name: bool) -> Source:
    path = Path(data) if data_dir is None else data_dir / data
    named = data == "digits" or data in LAYOUTS
    if by_name and (named or path.suffix.lower() == ".csv"):
        raise DataError(
            f"--labels-from-names: '{data}' says itself what its images are; leave the flag out"
        )
    if data == "digits":
        return digits()
    if named:
        return open_cifar(data, data_dir, watch, tell)
    if not os.path.exists(path):  # noqa: PTH110 - a name that no file can have raises in pathlib
        raise DataError(
            dead_link(path)
            or f"no data at '{data}': no such file or folder, and not a known data set "
            f"({suggest(data, NAMED)})"
        )
    if path.is_dir():
        source = _from_folder(data_root(path), watch, by_name)
        return replace(source, name=path.resolve().name)
    if path.suffix.lower() == ".csv":
        return from_table(path, watch)
    if archives.is_archive(path):
        return _from_archive(path, watch, tell, by_name)
    raise DataError(
        f"no data at '{path}': expected a folder of class folders or of parquet shards, a zip or "
        "tar of one, or a .csv"
    )


def _from_folder(path: Path, watch: Watch, by_name: bool) -> Source:
    if by_name:
        return from_file_names(path, watch)
    shards = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    return from_shards(path, shards) if shards else from_class_folders(path, watch)


def _from_archive(path: Path, watch: Watch, tell: Tell, by_name: bool) -> Source:
    """Return the source in an archive: that of the one table at the top, if any, or of folders."""
    unpacked = archives.unpack(path, watch, tell)
    try:
        root = data_root(unpacked)
        tables = sorted(root.glob("[!.]*.csv"))
        if len(tables) == 1 and not by_name:
            source = from_table(tables[0], watch, confined=True)
        else:
            source = _from_folder(root, watch, by_name)
    except DataError as error:
        raise DataError(f"'{path}', unpacked: {error}") from error
    return replace(source, name=archives.stem(path))
