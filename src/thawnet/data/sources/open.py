"""DATA, one name or path, to a source of labelled images."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import DataError, suggest
from ...net.published import Tell
from ..items import Source, Watch, unwatched
from . import archives
from .arrays import digits
from .cifar import LAYOUTS, open_cifar
from .folders import from_class_folders, is_folder, visible
from .shard_files import SUFFIX, parquet_files
from .shards import from_shards
from .superclasses import with_superclasses
from .table import from_table

NAMED = (*LAYOUTS, "digits")
DATA_FILES = (".csv", SUFFIX)  # that say what the images beside them are, or hold them


@dataclass(frozen=True)
class _Columns:
    """The columns of parquet files that were asked for."""

    image: str | None
    label: str | None

    def refuse(self, data: str | Path) -> None:
        """Raise DataError if there are any, for data without columns to choose."""
        for what, name in (("image", self.image), ("label", self.label)):
            if name is not None:
                raise DataError(
                    f"--{what}-column '{name}': only parquet files have columns to choose, "
                    f"and '{data}' is none; leave it out"
                )


def open_source(
    data: str,
    data_dir: Path | None = None,
    watch: Watch = unwatched,
    tell: Tell = lambda text: None,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """Return the source at DATA: a path, or the name of a data set, which is downloaded if needed.

    watch: opens a progress bar. tell: receives lines for a person, such as where the data came
    from. image_column, label_column: of parquet files that have several.
    Raises DataError when nothing is there or it cannot be trained on.
    """
    columns = _Columns(image_column, label_column)
    return with_superclasses(_open(data, data_dir, columns, watch, tell))


def _open(data: str, data_dir: Path | None, columns: _Columns, watch: Watch, tell: Tell) -> Source:
    if data in NAMED:
        columns.refuse(data)
        return digits() if data == "digits" else open_cifar(data, data_dir, watch, tell)
    path = Path(data) if data_dir is None else data_dir / data
    if not os.path.exists(path):  # noqa: PTH110 - a name that no file can have raises in pathlib
        raise DataError(
            f"no data at '{data}': no such file or folder, and not a known data set "
            f"({suggest(data, NAMED)})"
        )
    if path.is_dir():
        return _from_folder(path, columns, watch)
    suffix = path.suffix.lower()
    if suffix == SUFFIX:
        return from_shards(path, [path], columns.image, columns.label)
    if suffix == ".csv":
        columns.refuse(path)
        return from_table(path, watch)
    if archives.is_archive(path):
        return _from_archive(path, columns, watch, tell)
    raise DataError(
        f"no data at '{path}': expected a folder of class folders or of parquet files, a zip or "
        "tar of one, a .csv or a .parquet"
    )


def _from_folder(path: Path, columns: _Columns, watch: Watch) -> Source:
    shards = parquet_files(path)
    if shards:
        return from_shards(path, shards, columns.image, columns.label)
    columns.refuse(path)
    return from_class_folders(path, watch)


def _from_archive(path: Path, columns: _Columns, watch: Watch, tell: Tell) -> Source:
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
            columns.refuse(path)
            source = from_table(root / tables[0], watch, confined=True)
        else:
            source = _from_folder(root, columns, watch)
    except DataError as error:
        raise DataError(f"'{path}', unpacked: {error}") from error
    return replace(source, name=archives.stem(path))
