"""Parquet shards in the Hugging Face image layout."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, first_line
from .items import VALIDATION_NAMES, Items, Source, sha256_rows


def from_shards(path: Path, shards: list[Path]) -> Source:
    """Return the source that a folder's shards (train-*, validation-*, test-*.parquet) form.

    Raises DataError when shards are missing, damaged or do not name their columns.
    """
    parts: dict[str, list[Path]] = {}
    for shard in shards:
        word = re.split(r"[-.]", shard.name)[0]
        parts.setdefault("val" if word in VALIDATION_NAMES else word, []).append(shard)
    if "train" not in parts:
        raise DataError(
            f"'{path}' holds parquet shards but none named train-*.parquet; "
            f"found {', '.join(shard.name for shard in shards[:4])}"
        )
    for files in parts.values():
        _check_all_there(files)
    image, label, classes = _layout(parts["train"][0])
    return Source(
        name=path.resolve().name,
        classes=classes,
        parts=frozenset(parts) & {"train", "val", "test"},
        open_part=lambda part: _read_shards(parts[part], image, label, len(classes)),
    )


def _check_all_there(files: list[Path]) -> None:
    match = re.search(r"-of-(\d+)", files[0].name)
    if match and int(match[1]) != len(files):
        raise DataError(
            f"'{files[0].parent}' holds {len(files)} of {int(match[1])} shards like "
            f"'{files[0].name}'; download the missing ones"
        )


def _layout(shard: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return the image column, the label column and the class names of a shard."""
    schema = _opened(shard).schema_arrow
    try:
        features: dict[str, Any] = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        images = [name for name, kind in features.items() if kind["_type"] == "Image"]
        labels = {
            name: tuple(str(word) for word in kind["names"])
            for name, kind in features.items()
            if kind["_type"] == "ClassLabel"
        }
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"'{shard}' has no Hugging Face schema that names its image and label columns"
        ) from error
    if not images or not labels:
        raise DataError(
            f"'{shard}' needs an Image and a ClassLabel column; it has {list(features)}"
        )
    label = next((name for name in ("fine_label", "label") if name in labels), next(iter(labels)))
    return images[0], label, labels[label]


def _opened(shard: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(shard)  # type: ignore[no-untyped-call]
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise DataError(
            f"'{shard}' is not a whole parquet file ({shard.stat().st_size:,} bytes; "
            f"{first_line(error)}); download it again"
        ) from error


def _read_shards(files: list[Path], image: str, label: str, classes: int) -> Items:
    import pyarrow

    encoded: list[bytes] = []
    labels: list[int] = []
    for shard in files:
        try:
            table = _opened(shard).read(columns=[image, label])
            encoded += [cell["bytes"] or b"" for cell in table.column(image).to_pylist()]
            labels += (int(value) for value in table.column(label).to_pylist())
        except (pyarrow.lib.ArrowException, OSError, KeyError, TypeError) as error:
            raise DataError(
                f"'{shard}' can not be read ({first_line(error)}); download it again"
            ) from error
    array = np.asarray(labels, dtype=np.int64)
    if len(array) == 0 or array.min() < 0 or array.max() >= classes:
        raise DataError(f"'{files[0].parent}': labels are not all between 0 and {classes - 1}")
    part = files[0].name.split("-")[0]
    return Items(
        names=[f"{part}/{position}" for position in range(len(array))],
        labels=array,
        hashes=sha256_rows(encoded),
        read=encoded.__getitem__,
    )
