"""Sources from parquet shards, as the Hugging Face hub, pandas or polars write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, suggest
from ...core.text import counted
from ..items import Source
from .parts import check_names_differ
from .shard_columns import (
    Label,
    Labels,
    choose_columns,
    read_labels,
    require_no_split_column,
)
from .shard_files import parts_of
from .shard_images import Shards, read_part


def from_shards(
    path: Path,
    shards: list[Path],
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """Return the source formed by the parquet files of a folder, or by a single file.

    Its classes are those that the Hugging Face metadata names, else the labels that occur, sorted.
    Rows without a label are left out, and so is a part without any; `notes` says how many.
    image_column, label_column: which to read if there are several.
    Raises DataError if shards are missing or damaged, or columns or classes cannot be determined.
    """
    files, told = parts_of(path, shards)
    first = files["train"][0]
    require_no_split_column(first)
    columns = choose_columns(first, image_column, label_column)
    notes = [*told, *columns.notes]
    trained = read_labels(files["train"], columns, "train")
    positions = _positions(first, columns.label, columns.names, trained)
    parts: dict[str, Shards] = {}
    faults: dict[str, str] = {}
    for part, own in sorted(files.items(), key=lambda item: item[0] != "train"):
        try:
            labels = trained if part == "train" else read_labels(own, columns, part)
            rows = _labelled(own[0].parent, part, labels, positions)
        except DataError as error:
            if part == "train":
                raise
            faults[part] = str(error)
            continue
        without = int((rows < 0).sum())
        if without == len(rows) and part == "train":
            raise DataError(
                f"'{path}': no image has a label in column '{columns.label}'; "
                "--label-column NAME takes another"
            )
        if without < len(rows):
            parts[part] = Shards(part, own, columns.image, rows)
        if without:
            some = f"left out: {without:,} of {counted(len(rows), f'{part} image')}"
            notes.append(f"{some} without a label{'' if part in parts else ', so the whole part'}")

    def of(part: str) -> Shards:
        if part in faults:
            raise DataError(faults[part])
        return parts[part]

    def check_part(part: str) -> None:
        of(part)

    return Source(
        name=path.stem if path.is_file() else path.resolve().name,
        classes=tuple(str(label) for label, position in positions.items() if position >= 0),
        parts=frozenset((*parts, *faults)),
        open_part=lambda part: read_part(of(part)),
        notes=tuple(notes),
        check_part=check_part,
    )


def _positions(
    shard: Path, column: str, names: tuple[str, ...] | None, trained: Labels
) -> dict[Label, int]:
    """Return the class index of each label, in class order, -1 for no class."""
    where = f"'{shard}', column '{column}'"
    labels = dict.fromkeys(names or trained.values)
    if len({type(label) for label in labels}) > 1:
        raise DataError(f"{where}: text and numbers in one column are no labels; save it as text")
    # If classes are numbered from 0, -1 stands for none, as in the hub's test parts.
    none = -1 if 0 in labels else None
    classes = [label for label in (labels if names else sorted(labels)) if label != none]
    check_names_differ(map(str, classes), f"{where}, labels")
    if len(classes) == 1:
        raise DataError(
            f"{where}: one class only ('{classes[0]}'); a classifier needs at least two"
        )
    if not names and classes and len(trained.codes) == len(classes):
        raise DataError(
            f"{where}: all {len(classes):,} images have different values, so these are no classes; "
            "--label-column NAME takes another"
        )
    positions = {label: position for position, label in enumerate(classes)}
    return positions if none is None else {**positions, none: -1}


def _labelled(
    folder: Path, part: str, labels: Labels, positions: dict[Label, int]
) -> NDArray[np.int64]:
    """Return the class of each row, (n,), -1 for none."""
    if not len(labels.codes):
        raise DataError(f"'{folder}': the {part} part holds no image; remove {part}-*.parquet")
    lacking = next((str(label) for label in labels.values if label not in positions), None)
    if lacking is not None:
        known = [str(label) for label in positions]
        raise DataError(
            f"'{folder}': the {part} part has a class that train lacks: '{lacking}'; "
            + suggest(lacking, known)
        )
    return np.array([*(positions[label] for label in labels.values), -1])[labels.codes]
