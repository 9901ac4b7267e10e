"""CSV tables that name images and their labels."""

from __future__ import annotations

import csv
import os
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, suggest
from ...core.text import counted
from ..items import VALIDATION_NAMES, Items, Source, Watch, unwatched
from ..listing import listed_items
from ..names import Names
from .parts import check_names_differ

COLUMNS = ("path", "label", "split", "group")
PARTS = ("train", "val", "test")
SPLIT_WORDS = {"": 0, "train": 0, **dict.fromkeys(VALIDATION_NAMES, 1), "test": 2}
MOST_MISSING = 0.5  # share of the files; above it the paths are wrong, not some files lost


@dataclass(frozen=True)
class _Rows:
    """A table's columns; all arrays are (n,)."""

    paths: Names
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    parts: NDArray[np.int64]
    """Positions in PARTS."""
    groups: NDArray[np.int64]
    """-1 for none."""
    lines: NDArray[np.int64]
    """Where the rows begin in the file, from 1 on."""

    def at(self, rows: NDArray[np.int64]) -> _Rows:
        """Return some of the rows."""
        paths = Names(self.paths[row] for row in rows)
        arrays = (self.labels, self.parts, self.groups, self.lines)
        return _Rows(paths, self.classes, *(array[rows] for array in arrays))


def from_table(path: Path, watch: Watch = unwatched, confined: bool = False) -> Source:
    """Return the source that a CSV with the columns path,label[,split][,group] forms.

    Paths are relative to the CSV's folder; `confined` refuses those that leave it, for a table
    that came out of an archive. A label is a name and nothing else. The store lists files that do
    not exist as broken. Raises DataError, with line numbers, for a mistake in the table.
    """
    rows, notes = _once_each(path, _read(path))
    if confined:
        _stay_inside(path, rows)
    parts = frozenset(PARTS[part] for part in np.unique(rows.parts))
    _check_classes(path, rows)
    _check_files(path, rows)

    def open_part(part: str) -> Items:
        own = rows.at(np.flatnonzero(rows.parts == PARTS.index(part)))
        return listed_items(path.parent, own.paths, own.labels, part, watch, own.groups)

    return Source(
        name=path.stem,
        classes=rows.classes,
        parts=parts,
        open_part=open_part,
        notes=(*notes, *_straddling(rows)),
    )


def _read(path: Path) -> _Rows:
    """Read the whole table. Raises DataError for the first row that is not one."""
    records = _records(path)
    _, header = next(records, (0, []))
    columns = _columns(path, header)
    labels, parts, groups, lines = (array("q") for _ in range(4))
    label_numbers: dict[str, int] = {}
    group_numbers: dict[str, int] = {}
    unlabelled: list[int] = []

    def image_paths() -> Iterator[str]:
        for line, cells in records:
            if len(cells) > len(header):
                raise DataError(
                    f"'{path}', line {line}: {len(cells)} values for {len(header)} columns; "
                    "put quotes around a value that holds a comma"
                )
            cells += [""] * (len(header) - len(cells))
            value = {name: cells[column] for name, column in columns.items()}
            if not value["path"] or "\0" in value["path"]:
                raise DataError(f"'{path}', line {line}: no path of an image")
            label = unicodedata.normalize("NFC", value["label"].strip())
            if not label:
                unlabelled.append(line)
            word = value.get("split", "").strip()
            if word.lower() not in SPLIT_WORDS:
                raise DataError(
                    f"'{path}', line {line}: split '{word}' is unknown; "
                    f"allowed are {', '.join(word for word in SPLIT_WORDS if word)}"
                )
            group = value.get("group", "").strip()
            labels.append(label_numbers.setdefault(label, len(label_numbers)))
            parts.append(SPLIT_WORDS[word.lower()])
            groups.append(group_numbers.setdefault(group, len(group_numbers)) if group else -1)
            lines.append(line)
            yield value["path"]

    paths = Names(image_paths())
    if not len(paths):
        raise DataError(f"'{path}' has no rows below its header")
    if unlabelled:
        raise DataError(f"'{path}', {_numbered(unlabelled)}: no label; add one or remove the row")
    classes = tuple(sorted(label_numbers))
    positions = {name: position for position, name in enumerate(classes)}
    renumbered = np.array([positions[name] for name in label_numbers], dtype=np.int64)
    return _Rows(
        paths,
        classes,
        renumbered[np.array(labels)],
        np.array(parts),
        np.array(groups),
        np.array(lines),
    )


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, values) of each row that is not empty, the header first."""
    line = 0
    try:
        # A BOM, as Excel writes it, is no part of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield line + 1, cells
                line = reader.line_num
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' is not UTF-8 text (after line {line}); save it as 'CSV UTF-8'"
        ) from error
    except csv.Error as error:
        raise DataError(f"'{path}', line {line + 1}: not a row of a CSV ({error})") from error
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Return the position of each column. Raises DataError for a header that is not one."""
    names = [name.strip().lower() for name in header]
    expected = "expected path,label and, if wanted, split and group"
    has = f"'{path}': the header has {', '.join(repr(name.strip()) for name in header)}"
    if not names:
        raise DataError(f"'{path}' is empty; {expected} in its first line")
    if {"path", "label"} - set(names):
        if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
            expected += ", separated by commas"
        raise DataError(f"{has}; {expected}")
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise DataError(f"{has}; unknown is {unknown[0]!r}; {expected}")
    if len(set(names)) < len(names):
        raise DataError(f"{has}, one of them twice; {expected}")
    return {name: position for position, name in enumerate(names)}


def _once_each(path: Path, rows: _Rows) -> tuple[_Rows, list[str]]:
    """Drop rows that repeat another, and say so. Raises DataError if they contradict it."""
    keys = np.fromiter((hash(os.path.normpath(name)) for name in rows.paths), np.int64)
    _, inverse, count = np.unique(keys, return_inverse=True, return_counts=True)
    first: dict[tuple[str, int], int] = {}
    anywhere: dict[str, int] = {}
    repeated: list[int] = []
    for row in np.flatnonzero(count[inverse] > 1).tolist():
        name = os.path.normpath(rows.paths[row])
        other = anywhere.setdefault(name, row)
        for what, values in (("label", rows.labels), ("group", rows.groups)):
            if values[row] != values[other]:
                both = sorted((int(rows.lines[other]), int(rows.lines[row])))
                raise DataError(
                    f"'{path}', {_numbered(both)}: the same file '{name}' with another {what}; "
                    "keep one of the rows"
                )
        if first.setdefault((name, int(rows.parts[row])), row) != row:
            repeated.append(row)
    notes = []
    if repeated:
        notes.append(f"{len(repeated):,} rows that repeat another are left out")
        rows = rows.at(np.setdiff1d(np.arange(len(rows.labels)), repeated))
    both_parts = len(first) - len(anywhere)
    if both_parts:
        notes.append(f"{both_parts:,} files are listed in more than one part of the split column")
    return rows, notes


def _stay_inside(path: Path, rows: _Rows) -> None:
    for row, name in enumerate(rows.paths):
        inner = Path(os.path.normpath(name))
        if inner.is_absolute() or inner.parts[0] == "..":
            raise DataError(f"'{path}', line {rows.lines[row]}: '{name}' lies outside the archive")


def _check_classes(path: Path, rows: _Rows) -> None:
    check_names_differ(rows.classes, f"labels of '{path}'")
    if len(rows.classes) == 1:
        raise DataError(
            f"'{path}' names one class only ('{rows.classes[0]}'); a classifier needs at least two"
        )
    trained = np.unique(rows.labels[rows.parts == 0])
    if not len(trained):
        raise DataError(f"'{path}': the split column names no train rows, only val and test")
    lacking = np.setdiff1d(rows.labels, trained)
    if len(lacking):
        name = rows.classes[lacking[0]]
        known = [rows.classes[label] for label in trained]
        line = rows.lines[np.argmax(rows.labels == lacking[0])]
        raise DataError(
            f"'{path}', line {line}: no train row has the class '{name}'; {suggest(name, known)}"
        )


def _check_files(path: Path, rows: _Rows) -> None:
    """Raise DataError if a class, or most of the table, names files that do not exist."""
    # pathlib raises at names that no file can have.
    exists = np.fromiter((os.path.exists(path.parent / name) for name in rows.paths), bool)  # noqa: PTH110 - a Path for each of millions takes seconds
    if exists.all():
        return

    def looked_for(missing: NDArray[np.bool_]) -> str:
        row = int(np.argmax(missing))
        return (
            f"the first, line {rows.lines[row]}, was looked for at "
            f"'{(path.parent / rows.paths[row]).absolute()}' (paths are relative to the CSV)"
        )

    if (~exists).mean() > MOST_MISSING:
        raise DataError(
            f"'{path}': {(~exists).sum():,} of {len(exists):,} files do not exist; "
            + looked_for(~exists)
        )
    for part, word in enumerate(PARTS):
        own = rows.parts == part
        without = np.setdiff1d(rows.labels[own], rows.labels[own & exists])
        if len(without):
            missing = own & (rows.labels == without[0])
            raise DataError(
                f"'{path}': none of the {missing.sum():,} {word} files of class "
                f"'{rows.classes[without[0]]}' exists; " + looked_for(missing)
            )


def _straddling(rows: _Rows) -> Iterator[str]:
    """Yield a note of how many groups the table's own split divides, if any."""
    member = rows.groups >= 0
    pairs = np.unique(np.stack([rows.groups[member], rows.parts[member]]), axis=1)
    _, parts = np.unique(pairs[0], return_counts=True)
    divided = int((parts > 1).sum())
    if divided:
        yield (
            f"images of {counted(divided, 'group')} are in more than one part of the split column; "
            "accuracies there are not those on new groups"
        )


def _numbered(lines: Sequence[int]) -> str:
    """Return 'line 3', or 'lines 3, 5, 8 and 12 more'."""
    first = ", ".join(f"{line:,}" for line in lines[:5])
    more = f" and {len(lines) - 5:,} more" if len(lines) > 5 else ""
    return f"line{'s' if len(lines) > 1 else ''} {first}{more}"
