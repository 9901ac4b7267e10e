"""Which columns of a CSV hold the images, their classes, parts and groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import DataError, suggest
from ..items import PART_OF, PARTS
from ..reading import Reading
from .visible import is_image

# Common column names, the surest first.
IMAGES = (
    *("path", "image", "image_path", "filepath", "file_path", "filename", "file_name", "file"),
    *("image_name", "image_id", "img", "photo", "picture", "id", "name"),
)
LABELS = (
    *("label", "class", "category", "target", "class_name", "label_name", "class_label"),
    *("breed", "species", "variety", "diagnosis", "tag", "type"),
)
SPLITS = ("split", "set", "subset", "partition", "part", "usage")
# In the order of PARTS, for messages.
PART_WORDS = dict(
    sorted(
        {"": "train", **PART_OF, "validate": "val", "dev": "val"}.items(),
        key=lambda word_and_part: PARTS.index(word_and_part[1]),
    )
)
# Columns that are true for the rows of one part.
FLAGS = {"is_valid": "val", "is_val": "val", "is_test": "test"}
TRUTHS = {"true": True, "1": True, "yes": True, "": False, "false": False, "0": False, "no": False}
INDEX = ("", "unnamed:_0", "index")  # the index column that pandas writes
MOSTLY = 0.9  # share of the sampled rows


@dataclass(frozen=True)
class Columns:
    """Positions of the columns that are read."""

    image: int
    label: int
    split: int | None
    group: int | None
    notes: tuple[str, ...] = ()
    """Notes for the user on the choice."""
    flag: str | None = None
    """The part for which `split` is true; None if `split` holds the names of parts."""


Found = Callable[[Sequence[str]], float]  # names -> the share for which files are found


def choose_columns(
    path: Path, header: Sequence[str], sample: Sequence[Sequence[str]], asked: Reading, found: Found
) -> Columns:
    """Choose a table's columns: those asked for, else those that its header and first rows show.

    Raises DataError if no column fits, or more than one does.
    """
    table = _Table(path, header, sample)
    image = table.position(asked.image_column, "--image-column")
    if image is None:
        image = table.image(found)
    split, flag = table.split()
    group = table.named("group")
    taken = [place for place in (image, split, group) if place is not None]
    label = table.position(asked.label_column, "--label-column")
    if label is None:
        label = table.label(taken)
    if label == image:
        raise DataError(f"{table.has}; '{header[label]}' cannot be both image and label")
    unused = [
        name.strip()
        for place, name in enumerate(header)
        if place not in (*taken, label) and table.names[place] not in INDEX
    ]
    notes: tuple[str, ...] = ()
    if unused or (table.names[image], table.names[label]) != ("path", "label"):
        rest = f"; not used: {', '.join(map(repr, unused))}" if unused else ""
        notes = (
            f"'{path.name}': images from column '{header[image].strip()}', classes from "
            f"'{header[label].strip()}'{rest}",
        )
    return Columns(image, label, split, group, notes, flag)


class _Table:
    """The header and first rows of a CSV."""

    def __init__(self, path: Path, header: Sequence[str], sample: Sequence[Sequence[str]]) -> None:
        self.path = path
        self.header = header
        self.names = [name.strip().lower().replace(" ", "_") for name in header]
        self._sample = sample
        self.has = f"'{path}': the header has {', '.join(repr(name.strip()) for name in header)}"
        twice = {name for name in self.names if name and self.names.count(name) > 1}
        if twice & {*IMAGES, *LABELS, *SPLITS, *FLAGS, "group"}:
            raise DataError(f"{self.has}, one of them twice; give each column its own name")

    def values(self, place: int) -> list[str]:
        """Return the non-empty cells of a column in the first rows."""
        cells = (row[place].strip() if place < len(row) else "" for row in self._sample)
        return [cell for cell in cells if cell]

    def position(self, name: str | None, flag: str) -> int | None:
        """Return the column that a flag names, or None if the flag is not set."""
        if name is None:
            return None
        place = self.named(name.strip().lower().replace(" ", "_"))
        if place is None:
            known = [word.strip() for word in self.header]
            raise DataError(f"{self.has}; {flag} '{name}' is none of them; {suggest(name, known)}")
        return place

    def named(self, name: str) -> int | None:
        return self.names.index(name) if name in self.names else None

    def image(self, found: Found) -> int:
        """Return the column of the images."""
        if (place := self.named("path")) is not None:
            return place
        suffixed = [place for place in range(len(self.names)) if self._names_images(place)]
        known = [place for place in suffixed if self.names[place] in IMAGES]
        if len(suffixed) == 1 or len(known) == 1:
            return (known or suffixed)[0]
        if not suffixed:
            for name in IMAGES:
                place = self.named(name)
                if place is not None and found(self.values(place)) >= MOSTLY:
                    return place
        of = "names the images" if suffixed else "names image files that exist"
        raise DataError(
            f"{self.has}; which of them {of} is not clear: say it with --image-column NAME"
            + ("" if suffixed else ", and where they lie with --images FOLDER")
        )

    def _names_images(self, place: int) -> bool:
        values = self.values(place)
        files = (re.split(r"[/\\]", value)[-1] for value in values)
        return bool(values) and sum(map(is_image, filter(None, files))) >= MOSTLY * len(values)

    def label(self, taken: Sequence[int]) -> int:
        """Return the column of the classes; taken: columns that hold something else."""
        free = [place for place in range(len(self.names)) if place not in taken]
        if (place := self.named("label")) in free and place is not None:
            return place
        known = [place for place in free if self.names[place] in LABELS]
        if len(known) == 1:
            return known[0]
        rest = [
            place
            for place in known or free
            if self.names[place] not in INDEX and self._repeats(place)
        ]
        if len(rest) == 1:
            return rest[0]
        counts = ", ".join(
            f"'{self.header[place].strip()}' ({len(set(self.values(place))):,} different values in "
            f"the first {len(self._sample):,} rows)"
            for place in (rest or free)[:8]
        )
        raise DataError(
            f"{self.has}; which of them holds the classes is not clear: say it with --label-column "
            f"NAME{': ' if counts else ''}{counts}"
        )

    def _repeats(self, place: int) -> bool:
        """Return whether a column could hold classes: values repeat, or there are fewer than 3."""
        values = self.values(place)
        return bool(values) and (len(set(values)) < len(values) or len(values) < 3)

    def split(self) -> tuple[int | None, str | None]:
        """Return the column of the parts, if any, and the part for which it is true, if a flag."""
        if (place := self.named("split")) is not None:
            return place, None
        for place, name in enumerate(self.names):
            words = {value.lower() for value in self.values(place)}
            if name in SPLITS and words and words <= PART_WORDS.keys():
                return place, None
            if name in FLAGS and words <= TRUTHS.keys():
                return place, FLAGS[name]
        return None, None
