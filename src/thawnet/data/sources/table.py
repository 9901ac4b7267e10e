"""CSV tables that name images and their labels."""

from __future__ import annotations

import os
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, suggest
from ...core.text import counted
from ..items import MOST_MISSING, PARTS, Items, Source, Watch, unwatched
from ..listing import listed_items
from ..names import Names
from ..reading import AS_IT_IS, Reading
from .csv_columns import PART_WORDS, TRUTHS, Columns, choose_columns
from .csv_files import ImageFiles
from .csv_text import Record, open_text
from .parts import check_names_differ
from .visible import is_image

SAMPLE = 200  # rows that are sampled to see what the columns hold
NO_LABEL = ("", "nan", "null", "n/a", "#n/a", "<na>")  # how programs write an empty cell


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
    """Line of the file where each row begins, from 1."""

    def at(self, rows: NDArray[np.int64]) -> _Rows:
        """Return some of the rows."""
        paths = Names(self.paths[row] for row in rows)
        arrays = (self.labels, self.parts, self.groups, self.lines)
        return _Rows(paths, self.classes, *(array[rows] for array in arrays))


def from_table(
    path: Path, watch: Watch = unwatched, asked: Reading = AS_IT_IS, confined: bool = False
) -> Source:
    """Return the source formed by a CSV of images and their classes.

    Its columns are path,label[,split][,group], those that `asked` names, or those that fit by the
    header and rows. Image paths are relative to `asked.images` or the CSV's folder; `confined`
    refuses paths that leave it, for a table from an archive. Labels are always text, even numbers.
    The store lists missing files as broken. Raises DataError, with line numbers, for a mistake.
    """
    files = ImageFiles(asked.images or path.parent, path.stem)
    rows, notes = _read(path, asked, files)
    rows, repeated = _once_each(path, rows)
    if confined:
        _stay_inside(path, rows)
    paths, renamed = files.find(rows.paths, path)
    rows = replace(rows, paths=paths)
    parts = frozenset(PARTS[part] for part in np.unique(rows.parts))
    _check_classes(path, rows)
    _check_files(path, files.folder, rows)

    untold = files.untold(rows.paths)
    lone = (f"left out: '{folder}', which the table says nothing of" for folder in untold)

    def open_part(part: str) -> Items:
        own = rows.at(np.flatnonzero(rows.parts == PARTS.index(part)))
        return listed_items(files.folder, own.paths, own.labels, part, watch, own.groups)

    return Source(
        name=path.stem,
        classes=rows.classes,
        parts=parts,
        open_part=open_part,
        notes=(
            *notes,
            *renamed,
            *repeated,
            *files.without_row(rows.paths),
            *lone,
            *_straddling(rows),
        ),
        unlabelled=untold,
    )


def _read(path: Path, asked: Reading, files: ImageFiles) -> tuple[_Rows, tuple[str, ...]]:
    """Read the whole table. Raises DataError for the first row that is malformed."""
    text = open_text(path)
    records = text.records()
    first = next(records, None)
    if first is None:
        raise DataError(f"'{path}' is empty; expected a header, as in path,label, and rows")
    header = first[1]
    if any(map(is_image, filter(None, header))):  # there is no header: this is a row
        records = chain([first], records)
        header = [f"column {number}" for number in range(1, len(header) + 1)]
    sample = list(islice(records, SAMPLE))
    columns = choose_columns(path, header, [cells for _, cells in sample], asked, files.share)
    rows, unlabelled = _collect(path, header, columns, chain(sample, records))
    rows, left_out = _labelled(path, rows, unlabelled)
    return rows, (*text.notes, *columns.notes, *left_out)


def _collect(
    path: Path, header: Sequence[str], columns: Columns, records: Iterator[Record]
) -> tuple[_Rows, NDArray[np.bool_]]:
    """Return the rows below the header, and a mask of those without a label."""
    labels, parts, groups, lines = (array("q") for _ in range(4))
    label_numbers: dict[str, int] = {}
    group_numbers: dict[str, int] = {}
    unlabelled = bytearray()

    def image_paths() -> Iterator[str]:
        for line, cells in records:
            if len(cells) > len(header):
                raise DataError(
                    f"'{path}', line {line}: {len(cells)} values for {len(header)} columns; "
                    "put quotes around a value that holds the separator"
                )
            cells += [""] * (len(header) - len(cells))
            image = cells[columns.image].strip()
            if not image or "\0" in image:
                raise DataError(f"'{path}', line {line}: no path of an image")
            label = unicodedata.normalize("NFC", cells[columns.label].strip())
            unlabelled.append(label.lower() in NO_LABEL)
            group = cells[columns.group].strip() if columns.group is not None else ""
            labels.append(label_numbers.setdefault(label, len(label_numbers)))
            parts.append(_part(path, line, cells, columns))
            groups.append(group_numbers.setdefault(group, len(group_numbers)) if group else -1)
            lines.append(line)
            yield image

    paths = Names(image_paths())
    if not len(paths):
        raise DataError(f"'{path}' has no rows below its header")
    classes = tuple(sorted(label_numbers))
    positions = {name: position for position, name in enumerate(classes)}
    renumbered = np.array([positions[name] for name in label_numbers], dtype=np.int64)
    rows = _Rows(
        paths,
        classes,
        renumbered[np.array(labels)],
        np.array(parts),
        np.array(groups),
        np.array(lines),
    )
    return rows, np.frombuffer(unlabelled, np.bool_)


def _part(path: Path, line: int, cells: Sequence[str], columns: Columns) -> int:
    """Return a row's part, as a position in PARTS."""
    if columns.split is None:
        return 0
    word = cells[columns.split].strip()
    if columns.flag is not None:
        known = {text: columns.flag if true else "train" for text, true in TRUTHS.items()}
    else:
        known = PART_WORDS
    if word.lower() not in known:
        raise DataError(
            f"'{path}', line {line}: split '{word}' is unknown; "
            f"allowed are {', '.join(word for word in known if word)}"
        )
    return PARTS.index(known[word.lower()])


def _labelled(
    path: Path, rows: _Rows, unlabelled: NDArray[np.bool_]
) -> tuple[_Rows, tuple[str, ...]]:
    """Leave out unlabelled parts, with a note. Raises DataError for other unlabelled rows."""
    if not unlabelled.any():
        return rows, ()
    notes = []
    for part in (1, 2):
        own = rows.parts == part
        if own.any() and unlabelled[own].all():
            notes.append(
                f"the {PARTS[part]} part is left out: none of its {counted(int(own.sum()), 'row')} "
                "has a label"
            )
            rows, unlabelled = rows.at(np.flatnonzero(~own)), unlabelled[~own]
    if unlabelled.any():
        lines = rows.lines[unlabelled].tolist()
        raise DataError(f"'{path}', {_numbered(lines)}: no label; add one or remove the row")
    used = np.unique(rows.labels)
    classes = tuple(rows.classes[label] for label in used)
    return replace(rows, classes=classes, labels=np.searchsorted(used, rows.labels)), tuple(notes)


def _once_each(path: Path, rows: _Rows) -> tuple[_Rows, list[str]]:
    """Drop rows that repeat another, with a note. Raises DataError if they contradict it."""
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
        notes.append(f"{counted(len(repeated), 'row')} left out: another says the same")
        rows = rows.at(np.setdiff1d(np.arange(len(rows.labels)), repeated))
    both_parts = len(first) - len(anywhere)
    if both_parts:
        notes.append(
            f"{counted(both_parts, 'file')} listed in more than one part of the split column"
        )
    return rows, notes


def _stay_inside(path: Path, rows: _Rows) -> None:
    for row, name in enumerate(rows.paths):
        inner = Path(os.path.normpath(name))
        if inner.is_absolute() or inner.parts[:1] == ("..",):
            raise DataError(f"'{path}', line {rows.lines[row]}: '{name}' lies outside the archive")


def _check_classes(path: Path, rows: _Rows) -> None:
    check_names_differ(rows.classes, f"labels of '{path}'")
    if len(rows.classes) == 1 and 0 in rows.parts:
        raise DataError(
            f"'{path}' names one class only ('{rows.classes[0]}'); a classifier needs at least two"
        )
    trained = np.unique(rows.labels[rows.parts == 0])
    if not len(trained):
        return  # the images are only for evaluation
    lacking = np.setdiff1d(rows.labels, trained)
    if len(lacking):
        name = rows.classes[lacking[0]]
        known = [rows.classes[label] for label in trained]
        line = rows.lines[np.argmax(rows.labels == lacking[0])]
        raise DataError(
            f"'{path}', line {line}: no train row has the class '{name}'; {suggest(name, known)}"
        )


def _check_files(path: Path, folder: Path, rows: _Rows) -> None:
    """Raise DataError if most files, or all files of a class in a part, do not exist."""
    # pathlib raises at names that no file can have.
    exists = np.fromiter((os.path.exists(folder / name) for name in rows.paths), bool)  # noqa: PTH110 - a Path for each of millions takes seconds
    if exists.all():
        return

    def looked_for(missing: NDArray[np.bool_]) -> str:
        row = int(np.argmax(missing))
        return (
            f"the first, line {rows.lines[row]}, was looked for at "
            f"'{(folder / rows.paths[row]).absolute()}'; say where the images lie with --images "
            "FOLDER"
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
    """Yield a note that counts the groups that the table's own split divides, if any."""
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
