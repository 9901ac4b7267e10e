"""Which parquet files form which part of a data set, by their names and folders.

Parts have the names that the `datasets` library knows them by
(https://huggingface.co/docs/hub/datasets-file-names-and-splits).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath, PurePosixPath

from ...core.errors import DataError
from ...core.text import counted
from ..items import PART_OF
from .visible import is_folder, is_image, visible

WORDS = {**PART_OF, "dev": "val", "eval": "test", "evaluation": "test"}
SUFFIX = ".parquet"
PARTIAL = "partial-"  # begins a part's folder where the hub converted large data in part
DEFAULT = "default"  # the configuration of files that no folder gives one
MOST_NAMED = 8  # configurations
DEPTH = 2  # folders between DATA and its shards: a configuration and a part


def parquet_files(folder: Path) -> list[Path]:
    """Return a data set's parquet files: the folder's own, else those of data/, else deeper ones.

    A folder that holds images is a class and is not searched.
    """
    data = folder / "data"
    return _own(folder) or (_own(data) if data.is_dir() else []) or _below(folder, DEPTH)


def of_configuration(names: Iterable[str], config: str | None) -> list[str]:
    """Return those parquet files of a data set that are of one of its configurations.

    names: relative to the data set. config: None for the only one.
    Raises DataError if there are several and none is named, or not this one.
    """
    known: dict[str, list[str]] = {}
    for name in names:
        known.setdefault(_part_and_set(PurePosixPath(name))[1] or DEFAULT, []).append(name)
    configs = sorted(known)
    if config in known:
        return known[config]
    if config is None and len(configs) == 1:
        return known[configs[0]]
    listed = ", ".join(configs[:MOST_NAMED]) + ", ..." * (len(configs) > MOST_NAMED)
    if config is None:
        raise DataError(f"it has several configurations, {listed}: add one, as in :{configs[0]}")
    raise DataError(f"it has no configuration '{config}', only {listed}")


def parts_of(path: Path, files: list[Path]) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Return the files of each part ('train', maybe 'val' and 'test'), and notes for the user.

    path: DATA, a folder or a parquet file; a single file trains, whatever its name.
    Raises DataError if these are several data sets, shards are missing, or there is no train part.
    """
    if path.is_file():
        count = re.search(r"\d-of-0*(\d+)", path.name)
        if count is None or count[1] == "1":
            return {"train": files}, ()
        alone = f"'{path.name}' alone is read, one of {count[1]} shards; give its folder for all"
        return {"train": files}, (alone,)
    parts: dict[str, list[Path]] = {}
    sets: dict[str, Path] = {}
    for file in files:
        part, data_set = _part_and_set(file.relative_to(path))
        parts.setdefault(part, []).append(file)
        sets.setdefault(data_set or ".", file)
    if len(sets) > 1:
        listed = ", ".join(f"'{name}'" for name in sorted(sets))
        one = max(sets)
        folder = next(each for each in sets[one].parents if each.name == Path(one).name)
        raise DataError(
            f"'{path}' holds {len(sets)} data sets: {listed}; give the folder of one, such as "
            f"'{folder}'"
        )
    unnamed = parts.pop("", [])
    if not parts:
        parts, unnamed = {"train": unnamed}, []
    if "train" not in parts:
        raise DataError(
            f"'{path}' holds parquet shards but none named train-*.parquet; "
            f"found {', '.join(file.name for file in files[:4])}"
        )
    for own in parts.values():
        _check_all_there(own)
    notes = []
    if unnamed:
        left_out = counted(len(unnamed), "parquet file")
        notes.append(f"left out: {left_out} named for no part, such as '{unnamed[0].name}'")
    if any(file.parent.name.startswith(PARTIAL) for own in parts.values() for file in own):
        notes.append("this is only the beginning of the data set: the hub converted no more of it")
    return parts, tuple(notes)


def _own(folder: Path) -> list[Path]:
    return [
        folder / entry.name
        for entry in visible(folder)
        if entry.name.lower().endswith(SUFFIX) and not is_folder(entry)
    ]


def _below(folder: Path, depth: int) -> list[Path]:
    """List parquet files down to a depth, skipping folders below the top that hold images."""
    files, inner = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                if is_folder(entry):
                    inner.append(entry.name)
                elif entry.name.lower().endswith(SUFFIX):
                    files.append(folder / entry.name)
                elif depth < DEPTH and is_image(entry.name):
                    return []  # without listing all of 100,000
    except OSError:
        return []  # reported when the class folders are listed
    if depth:
        files += [file for name in inner for file in _below(folder / name, depth - 1)]
    return sorted(files)


def _part_and_set(file: PurePath) -> tuple[str, str]:
    """Return a file's part, '' if no name gives it, and the name of its configuration.

    file: relative to DATA. The file's own name takes precedence over its folder's.
    """
    *folders, _ = file.parts
    parts = [_part(name) for name in (*folders, file.stem)]
    told = next(filter(None, reversed(parts)), "")
    others = (name for name, part in zip(folders, parts, strict=False) if not part)
    return told, "/".join(name for name in others if name != "data")


def _part(name: str) -> str:
    words = re.split(r"[^a-z]+", name.lower())
    return next((WORDS[word] for word in words if word in WORDS), "")


def _check_all_there(files: list[Path]) -> None:
    """Raise DataError if a numbered file (00000-of-00003) is missing or occurs twice."""
    series: dict[tuple[Path, str, int], dict[int, Path]] = {}
    for file in files:
        match = re.match(r"(.*?)(\d+)-of-(\d+)", file.name)
        if match:
            numbers = series.setdefault((file.parent, match[1], int(match[3])), {})
            other = numbers.setdefault(int(match[2]), file)
            if other != file:
                raise DataError(
                    f"'{file.parent}' holds shard {match[2]} twice, as '{other.name}' and "
                    f"'{file.name}'; remove one"
                )
    for (folder, _, count), numbers in series.items():
        if len(numbers) != count:
            raise DataError(
                f"'{folder}' holds {len(numbers)} of {count} shards like "
                f"'{next(iter(numbers.values())).name}'; download the missing ones"
            )
