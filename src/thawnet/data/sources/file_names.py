"""Images whose file names give their class: cat.0.jpg, great_pyrenees_173.jpg, rose (3).jpg."""

from __future__ import annotations

import os
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from ...core.text import counted
from ..items import Source, Watch, unwatched
from ..names import Names
from .layout import part_roots
from .parts import Listing, check_names_differ, files_source
from .visible import Skipped, walk

MOST_CLASSES = 1000  # offered at most; more must be numbers of something else
# A class, one or more separators, a number.
_NUMBERED = re.compile(r"(.*[^\s._(-])[\s._(-]+[0-9]+\)?", re.DOTALL)

# What cameras, phones and programs call pictures, with a date or a number.
_CAMERA = re.compile(
    r"_?(img|mvimg|dsc[nf]?|mg|pxl|p|pict|sam|cimg|imag|dji|gopr|gp|vid|scan|image|images|photo|foto"
    r"|picture|pic|bild|frame|screenshot|bildschirmfoto|whatsapp image|signal|snapchat)"
    r"[\W_\d]*(at|wa|burst|edit|copy)?[\W_\d]*",
    re.IGNORECASE,
)


def from_file_names(path: Path, watch: Watch = unwatched) -> Source:
    """Return the source of the images below `path` or its parts, labelled by file names.

    Images are taken at any depth: folders other than train/, val/ and test/ have no meaning. A val
    or test part without classes is left out, see parts.files_source.
    Raises DataError if a training image's name gives no class, or if there is only one class.
    """
    skipped = Skipped()
    roots = part_roots(path, skipped, by_class=False)
    read = {
        part: _read(root, "" if root == path else f"{root.name}/", skipped)
        for part, root in roots.items()
    }
    classes = _classes(roots["train"], read["train"])
    position = {name: label for label, name in enumerate(classes)}
    listings = {part: _listing(files, position) for part, files in read.items()}
    return files_source(path, classes, roots, listings, skipped.notes(), watch)


def label_of(name: str) -> str | None:
    """Return the class in a file name, before a separator and a number; None if there is none."""
    stem, _ = os.path.splitext(os.path.basename(name))  # noqa: PTH119, PTH122 - 100,000 Paths take a second
    match = _NUMBERED.fullmatch(stem)
    return unicodedata.normalize("NFC", match[1]) if match else None


def offer(root: Path) -> str:
    """Return the end of a message that offers classes from file names, or '' if they give none."""
    counts = _counted(root)
    if None in counts or not 2 <= len(counts) <= MOST_CLASSES or min(counts.values()) < 2:
        return ""
    if any(_CAMERA.fullmatch(label or "") for label in counts):
        return ""
    shown = [f"{label} {count:,}" for label, count in counts.most_common(4)]
    more = ", ..." if len(counts) > len(shown) else ""
    return (
        f"; their names would give {counted(len(counts), 'class')}: {', '.join(shown)}{more}, "
        "if you add --labels-from-names"
    )


def _counted(root: Path) -> Counter[str | None]:
    """Count the images of each label; None stands for names without one."""
    return Counter(map(label_of, walk(root, "", Skipped())))


class _Files(NamedTuple):
    names: Names
    table: list[str | None]
    """The distinct labels; None stands for names without one."""
    numbers: NDArray[np.int64]
    """The position of each file's label in the table, (n,)."""


def _read(root: Path, prefix: str, skipped: Skipped) -> _Files:
    table: dict[str | None, int] = {}
    numbers = array("q")

    def names() -> Iterator[str]:
        for name in walk(root, prefix, skipped):
            numbers.append(table.setdefault(label_of(name), len(table)))
            yield name

    listed = Names(names())
    return _Files(listed, list(table), np.array(numbers, np.int64))


def _classes(root: Path, train: _Files) -> tuple[str, ...]:
    """Return the training classes. Raises DataError if an image has none, or all have the same."""
    expected = "expected a class, a separator and a number, as in cat.0.jpg or black_cat_173.jpg"
    if not train.table:
        raise DataError(f"no images at '{root}'; {expected}")
    where = f"names of images in '{root}'"
    if None in train.table:
        without = train.numbers == train.table.index(None)
        raise DataError(
            f"{where}: {without.sum():,} of {len(without):,} say no class, the first "
            f"'{train.names[int(without.argmax())]}'; {expected}"
        )
    classes = tuple(sorted(label for label in train.table if label is not None))
    check_names_differ(classes, where)
    if len(classes) == 1:
        raise DataError(
            f"{where} say one class only ('{classes[0]}'); a classifier needs at least two"
        )
    return classes


def _listing(files: _Files, position: dict[str, int]) -> Listing:
    known = np.array([position.get(label or "", -1) for label in files.table], np.int64)
    labels = known[files.numbers]
    rows = np.flatnonzero(labels >= 0)
    names = Names(files.names[row] for row in rows.tolist())
    unknown = sorted(label for label in files.table if label is not None and label not in position)
    if len(rows) and None in files.table:
        first = int((files.numbers == files.table.index(None)).argmax())
        unknown.append(os.path.basename(files.names[first]))  # noqa: PTH119 - as above
    return Listing(names, labels[rows], unknown, len(labels) - len(rows))
