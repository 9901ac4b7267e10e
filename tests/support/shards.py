"""Parquet shards in the layout of the Hugging Face hub, and as other programs write them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow
import pyarrow.parquet


def shard(
    cells: Sequence[dict[str, Any] | None], labels: Sequence[int | None], names: object, **how: Any
) -> bytes:
    """Return a shard of images and their labels, packed as `how` says; names: of the classes."""
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    return table({"img": cells, "label": labels}, features, **how)


def table(
    columns: Mapping[str, Any], features: Mapping[str, Any] | None = None, **how: Any
) -> bytes:
    """Return a parquet file of columns; features: the Hugging Face metadata, if it has some."""
    content = pyarrow.table(dict(columns))
    if features is not None:
        content = content.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    file = io.BytesIO()
    pyarrow.parquet.write_table(content, file, **how)
    return file.getvalue()
