"""Opening DATA, a name or a path, as a source of labelled images."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...core.errors import DataError, suggest
from ...net.http import FetchError
from ...net.hub import MissingError, endpoint, fetch_dataset
from ...net.published import Tell
from ..items import Source, Watch, unwatched
from ..reading import AS_IT_IS, Reading
from . import archives
from .arrays import digits
from .cifar import LAYOUTS, open_cifar
from .class_names import with_class_names
from .file_names import from_file_names
from .folders import from_class_folders
from .layout import OWN_LISTS, data_root
from .shard_files import SUFFIX, of_configuration, parquet_files
from .shards import from_shards
from .superclasses import with_superclasses
from .table import from_table
from .visible import dead_link, visible

NAMED = (*LAYOUTS, "digits")
TABLES = (".csv", ".tsv", ".txt")
# A data set on the Hugging Face hub, and the configuration of it: hf:USER/NAME[:CONFIG].
HUB = re.compile(
    r"(?:hf:(?://datasets/)?|https://huggingface\.co/datasets/)([\w.-]+(?:/[\w.-]+)?)(?::([\w./-]*[\w.-]))?/?"
)
SHEETS = (".xlsx", ".xls", ".ods", ".numbers")


def is_named(data: str) -> bool:
    """Return whether DATA is a data set's name, and no path."""
    return data in NAMED or HUB.fullmatch(data) is not None


def open_source(
    data: str,
    data_dir: Path | None = None,
    watch: Watch = unwatched,
    tell: Tell = lambda text: None,
    asked: Reading = AS_IT_IS,
) -> Source:
    """Return the source at DATA: a path, or the name of a data set, which is downloaded if needed.

    watch: opens a progress bar. tell: receives lines for the user, such as where the data came
    from. asked: how to read data of ambiguous form. Raises DataError if there is no data or it
    cannot be trained on.
    """
    source = with_superclasses(_open(data, data_dir, watch, tell, asked))
    return source if asked.class_names is None else with_class_names(source, asked.class_names)


def _open(data: str, data_dir: Path | None, watch: Watch, tell: Tell, asked: Reading) -> Source:
    if data in NAMED:
        _require_no_columns(data, asked)
        _require_no_labels_from_names(data, asked)
        return digits() if data == "digits" else open_cifar(data, data_dir, watch, tell)
    if repository := HUB.fullmatch(data):
        _require_no_labels_from_names(data, asked)
        if data_dir is not None:
            raise DataError(
                f"--data-dir '{data_dir}': it is for cifar10 and cifar100; leave it out, or give a "
                f"folder of parquet files instead of '{data}'"
            )
        folder, files = _from_hub(data, repository[1], repository[2], tell)
        return replace(_from_shards(folder, files, asked), name=repository[1].split("/")[-1])
    path = Path(data) if data_dir is None else data_dir / data
    suffix = path.suffix.lower()
    if suffix in (SUFFIX, *TABLES):
        _require_no_labels_from_names(data, asked)
    if not os.path.exists(path):  # noqa: PTH110 - a name that no file can have raises in pathlib
        raise DataError(
            dead_link(path)
            or f"no data at '{path}': no such file or folder, and not a known data set "
            f"({suggest(data, NAMED)})"
        )
    if path.is_dir():
        source = _from_folder(data_root(path), watch, asked)
        return replace(source, name=path.resolve().name)
    if archives.is_archive(path):
        return _from_archive(path, watch, tell, asked)
    if suffix == SUFFIX:
        return _from_shards(path, [path], asked)
    if suffix in TABLES:
        return from_table(path, watch, asked)
    if suffix in SHEETS:
        raise DataError(f"'{path}' is a spreadsheet; save it as 'CSV UTF-8' and give that")
    raise DataError(
        f"no data at '{path}': expected a folder of class folders or of parquet files, a zip or "
        "tar of one, a .csv or a .parquet"
    )


def _from_hub(
    data: str, repository: str, config: str | None, tell: Tell
) -> tuple[Path, list[Path]]:
    """Return the folder of a data set on the hub and its parquet files, fetched if need be."""

    def choose(names: list[str]) -> list[str]:
        try:
            return of_configuration(names, config)
        except DataError as error:
            raise DataError(f"'{data}': {error}") from error

    try:
        return fetch_dataset(repository, config, choose, tell)
    except MissingError as error:
        raise DataError(f"'{data}': {error}") from error
    except FetchError as error:
        raise DataError(
            f"'{data}' could not be fetched from {endpoint()}: {error}. Without that network, give "
            "a folder of its parquet files, or name a mirror with the variable HF_ENDPOINT"
        ) from error


def _from_shards(path: Path, shards: list[Path], asked: Reading) -> Source:
    if asked.images is not None:
        raise DataError(
            f"--images '{asked.images}': it is for a CSV, and '{path}' holds parquet files, with "
            "the images in them; leave it out"
        )
    return from_shards(path, shards, asked.image_column, asked.label_column)


def _from_folder(path: Path, watch: Watch, asked: Reading) -> Source:
    if asked.labels_from_names:
        _require_no_columns(str(path), asked)
        return from_file_names(path, watch)
    shards = parquet_files(path)
    if shards:
        return _from_shards(path, shards, asked)
    tables = _tables(path)
    try:
        source = from_class_folders(path, watch)
    except DataError as error:
        table = _only_table(path, tables, watch, asked)
        if table is not None:
            return table
        packed = [entry.name for entry in visible(path) if archives.is_archive(path / entry.name)]
        others = [*(table.name for table in tables), *packed]
        if not others:
            raise
        listed = ", ".join(f"'{path / name}'" for name in others[:4])
        raise DataError(f"{error}; or give what else is there: {listed}") from error
    _require_no_columns(str(path), asked)
    told = tuple(f"'{table.name}' is not read; give it instead of its folder" for table in tables)
    return replace(source, notes=(*source.notes, *told))


def _only_table(path: Path, tables: list[Path], watch: Watch, asked: Reading) -> Source | None:
    """Return the source of the only table in a folder that names images, None if none does.

    Raises DataError if several do.
    """
    sources = {}
    for table in tables:
        with suppress(DataError):
            sources[table.name] = from_table(table, watch, asked)
    if len(sources) > 1:
        raise DataError(
            f"'{path}' holds {' and '.join(map(repr, sources))}; give the one that says what its "
            "images are"
        )
    for name, source in sources.items():
        return replace(source, notes=(f"read by its table '{name}'", *source.notes))
    return None


def _from_archive(path: Path, watch: Watch, tell: Tell, asked: Reading) -> Source:
    """Return the source in an archive, read by its only top-level table if there is one."""
    unpacked = archives.unpack(path, watch, tell)
    try:
        root = data_root(unpacked)
        tables = _tables(root)
        if len(tables) == 1 and not asked.labels_from_names:
            source = from_table(tables[0], watch, asked, confined=True)
        else:
            source = _from_folder(root, watch, asked)
    except DataError as error:
        raise DataError(f"'{path}', unpacked: {error}") from error
    return replace(source, name=archives.stem(path))


def _tables(path: Path) -> list[Path]:
    """Return the CSV files in a folder that may label its images.

    Excluded are the lists that thawnet itself writes and submission files of competitions.
    """
    names = (entry.name for entry in visible(path))
    return [
        path / name
        for name in names
        if name.lower().endswith(".csv")
        and name not in OWN_LISTS
        and "submission" not in name.lower()
    ]


def _require_no_columns(data: str, asked: Reading) -> None:
    """Raise DataError if columns, or a table's images, were chosen for data without a table."""
    for flag, value in (
        ("image-column", asked.image_column),
        ("label-column", asked.label_column),
        ("images", asked.images),
    ):
        if value is not None:
            raise DataError(
                f"--{flag} '{value}': it is for a CSV, or parquet files, and '{data}' is "
                "neither; leave it out"
            )


def _require_no_labels_from_names(data: str, asked: Reading) -> None:
    if asked.labels_from_names:
        raise DataError(
            f"--labels-from-names: '{data}' already says what its images are; leave the flag out"
        )
