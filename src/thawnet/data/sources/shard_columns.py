"""Which columns of parquet shards hold images and labels, and what the labels are."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, suggest
from ...core.text import shown
from .csv_columns import PART_WORDS, SPLITS
from .parquet import TEXT, opened, readable

Label = str | int
MOST_LABELS = 100_000  # different ones; a column with more holds file names or row numbers
LABEL_BYTES = 2**26  # of the different labels in a batch
LABEL_ROWS = 2**16  # in a batch
MAX_METADATA = 2**22  # bytes of JSON: 20,000 class names take less than one million
# Types as pyarrow writes them.
BINARY = ("binary", "large_binary", "binary_view")
NUMBERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
FRACTIONS = ("halffloat", "float", "double")
SAVE_AS = {
    "image": "bytes, or structs of bytes and path",
    "label": "text, whole numbers, or true and false",
}
PREFERRED = {
    "image": ("image",),
    "label": ("fine_label", "label"),  # CIFAR-100 has a coarse_label too
}


@dataclass(frozen=True)
class Columns:
    """The columns that are read."""

    image: str
    label: str
    names: tuple[str, ...] | None
    """Class names for the numbers in the label column, if the metadata gives them."""
    notes: tuple[str, ...]
    """Notes for the user on columns chosen from several."""


@dataclass(frozen=True)
class Labels:
    """The label column of a part."""

    codes: NDArray[np.int64]
    """Index of each row's label in `values`, (n,); -1 for none."""
    values: tuple[Label, ...]
    """The labels that occur."""


def choose_columns(shard: Path, image: str | None, label: str | None) -> Columns:
    """Choose the columns of a data set by the schema of one shard.

    Columns that its Hugging Face metadata calls Image and ClassLabel precede those that only have a
    fitting type. image, label: the columns that were asked for.
    Raises DataError if one is missing, of another type, or one of several.
    """
    schema = opened(shard).schema_arrow
    features = _features(schema)
    kinds = {field.name: field.type for field in schema}

    def choose(what: str, asked: str | None, marked: str, fitting: dict[str, bool]) -> str:
        """Return a column; fitting: columns of the right type, and whether each is a default."""
        if asked is not None:
            if asked not in kinds:
                raise DataError(
                    f"--{what}-column '{asked}': '{shard}' has no such column; "
                    + suggest(asked, kinds)
                )
            if asked not in fitting:
                raise DataError(
                    f"--{what}-column '{asked}': that column of '{shard}' holds "
                    f"{shown(kinds[asked])}, and {what}s are {SAVE_AS[what]}"
                )
        candidates = [name for name in fitting if features.get(name) == marked] or [
            name for name, unasked in fitting.items() if unasked
        ]
        if asked is None and not candidates:
            raise DataError(
                f"'{shard}' has no column of {what}s ({SAVE_AS[what]}), only {_listed(kinds)}; "
                f"save the {what}s in one that is called {what}"
            )
        first = [name for word in PREFERRED[what] for name in candidates if name.lower() == word]
        if asked is None and not first and len(candidates) > 1:
            raise DataError(
                f"'{shard}' has {len(candidates)} columns that may hold the {what}s: "
                f"{_listed(candidates)}; choose with --{what}-column NAME"
            )
        chosen = asked or (first or candidates)[0]
        others = [name for name in candidates if name != chosen]
        if others:
            notes.append(
                f"the {what}s are column '{chosen}'; --{what}-column takes another: "
                + _listed(others)
            )
        return chosen

    notes: list[str] = []
    images = {name: True for name, kind in kinds.items() if _holds_images(kind)}
    # pandas also saves its row index. Whole numbers become fractions if some are missing.
    labels = {
        name: not name.startswith("__index_level_")
        and (str(kind) not in FRACTIONS or name.lower() == "label")
        for name, kind in kinds.items()
        if _holds_labels(kind)
    }
    image = choose("image", image, "Image", images)
    label = choose("label", label, "ClassLabel", labels)
    return Columns(image, label, _class_names(schema, label), tuple(notes))


def require_no_split_column(shard: Path) -> None:
    """Raise DataError if a column gives each row's part: parts must be files of their own."""
    schema = opened(shard).schema_arrow
    name = next((field.name for field in schema if field.name.lower() in SPLITS), None)
    if name is None or str(schema.field(name).type) not in TEXT:
        return
    with readable(shard):
        batch = next(opened(shard).iter_batches(LABEL_ROWS, columns=[name]), None)
    words = (
        set()
        if batch is None
        else {str(value) for value in batch.column(name).unique().to_pylist()}
    )
    if len(words) > 1 and {word.lower() for word in words} <= PART_WORDS.keys() | {"none"}:
        raise DataError(
            f"'{shard}' says in column '{name}' which rows train and which test "
            f"({_listed(sorted(words))}); write each to a file of its own, as in train.parquet and "
            "test.parquet, or take the column out"
        )


def read_labels(shards: Sequence[Path], columns: Columns, part: str) -> Labels:
    """Read the labels of a part and nothing else.

    In parts other than 'train', shards may lack the column; their rows have no label.
    Raises DataError for a shard without the columns, a value that is not a label, and more than
    MOST_LABELS different values.
    """
    codes = bytearray()
    values: dict[Label, int] = {}
    column = columns.label
    for shard in shards:
        schema = opened(shard).schema_arrow
        kinds = {field.name: field.type for field in schema}
        needed = (columns.image, column) if part == "train" else (columns.image,)
        lacking = next((name for name in needed if name not in kinds), None)
        if lacking is not None:
            raise DataError(
                f"'{shard}' has no column '{lacking}', as other shards have, only "
                f"{_listed(kinds)}; save all of them alike"
            )
        if not _holds_images(kinds[columns.image]):
            raise DataError(
                f"'{shard}': column '{columns.image}' holds {shown(kinds[columns.image])}; images "
                f"are {SAVE_AS['image']}"
            )
        names = _class_names(schema, column)
        with readable(shard):
            for cells, rows in _batches(shard, column, kinds.get(column)):
                many = len(cells) > MOST_LABELS or cells.nbytes > LABEL_BYTES
                positions = np.full(len(cells) + 1, -1)  # the last is for code -1
                for row in [] if many else np.unique(rows[rows >= 0]).tolist():
                    label = _label(cells[row].as_py(), names, shard)
                    if label is not None:
                        positions[row] = values.setdefault(label, len(values))
                if many or len(values) > MOST_LABELS:
                    raise DataError(
                        f"'{shard}': column '{column}' holds over {MOST_LABELS:,} different "
                        "values, so these are no classes; --label-column NAME takes another"
                    )
                codes += positions[rows].data
    return Labels(np.frombuffer(codes, np.int64), tuple(values))


def _batches(shard: Path, column: str, kind: Any) -> Iterator[tuple[Any, NDArray[np.int64]]]:
    """Yield, per batch, the distinct values and each row's index in them, -1 for null.

    kind: the column's type, None for a shard that lacks it.
    """
    if kind is None:
        # The declared number of rows may be false; an image takes at least a byte.
        rows = min(opened(shard).metadata.num_rows, shard.stat().st_size)
        yield np.empty(0), np.full(rows, -1)
        return
    # A long text that is repeated in all rows is read once.
    file = opened(shard, [column] if str(kind) in TEXT else [])
    for batch in file.iter_batches(LABEL_ROWS, columns=[column]):
        cells = batch.column(column)
        encoded = cells if hasattr(cells, "dictionary") else cells.dictionary_encode()
        codes = encoded.indices.cast("int64").fill_null(-1)
        yield encoded.dictionary, codes.to_numpy(zero_copy_only=False)


def _label(value: object, names: tuple[str, ...] | None, shard: Path) -> Label | None:
    """Return a cell's label, None if it has none. Raises DataError if it cannot be one."""
    if isinstance(value, float):
        if value != value:  # NaN, as pandas writes a missing number
            return None
        if not value.is_integer():
            raise DataError(
                f"'{shard}' gives an image the label {value}; expected whole numbers or text"
            )
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if names is None:
            return value
        if value == -1:  # as in the hub's test parts
            return None
        if not 0 <= value < len(names):
            raise DataError(
                f"'{shard}' gives an image the label {value}, and its schema names no class but "
                f"0 to {len(names) - 1}; correct the label"
            )
        return names[value]
    if value is None:
        return None
    return unicodedata.normalize("NFC", str(value).strip()) or None


def _class_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """Return a column's class names from the Hugging Face metadata, if they are there."""
    try:
        names = _metadata(schema)[column]["names"]
        if str(schema.field(column).type) in TEXT:  # text needs no names
            return None
    except (KeyError, TypeError):
        return None
    named = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return tuple(names) if named else None


def _features(schema: Any) -> dict[str, Any]:
    """Return the feature type of each column that the Hugging Face metadata describes."""
    kinds = {}
    for name, feature in _metadata(schema).items():
        kinds[name] = feature.get("_type") if isinstance(feature, dict) else None
    return kinds


def _metadata(schema: Any) -> dict[str, Any]:
    """Return the features in the Hugging Face metadata, {} if missing, too large or malformed."""
    text = (schema.metadata or {}).get(b"huggingface", b"")
    if len(text) > MAX_METADATA:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
    except (TypeError, KeyError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _holds_images(kind: Any) -> bool:
    """Return whether a type is binary, or a struct of bytes, which are typeless if all are null."""
    if str(kind).startswith("struct<"):
        index = kind.get_field_index("bytes")
        return index >= 0 and str(kind.field(index).type) in {*BINARY, "null"}
    return str(kind) in BINARY


def _holds_labels(kind: Any) -> bool:
    if str(kind).startswith("dictionary<"):
        kind = kind.value_type
    return str(kind) in {*TEXT, *NUMBERS, *FRACTIONS, "bool"}


def _listed(names: Any) -> str:
    some = [f"'{name}'" for name in names]
    return ", ".join(some if len(some) <= 12 else [*some[:12], "..."])
