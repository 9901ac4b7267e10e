"""Parquet shards in the layout of the Hugging Face hub."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow
import pyarrow.parquet


def shard(
    cells: Sequence[dict[str, Any] | None], labels: Sequence[int | None], names: object, **how: Any
) -> bytes:
    """Return a shard of images and their labels, packed as `how` says; names: of the classes."""
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    table = pyarrow.table({"img": cells, "label": labels})
    table = table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, **how)
    return file.getvalue()
