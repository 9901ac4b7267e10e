"""Opening and reading parquet files, with a message for each way in which that fails."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...core.errors import DataError, first_line

TEXT = ("string", "large_string", "string_view")  # types as pyarrow writes them
SMALL = 2**22  # bytes of a file whose columns are read whole
LFS = b"version https://git-lfs"  # begins the pointer that a clone without Git LFS has instead


def opened(shard: Path, as_dictionary: Sequence[str] = ()) -> Any:
    """Return a pyarrow ParquetFile; as_dictionary: text columns whose values are read once each.

    Raises DataError if it cannot be read, or is not a whole parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        # Unbuffered, a whole row group is fetched before its first row. Buffered, a page gets the
        # memory that it declares, up to 2 GB, so small files are read unbuffered.
        small = shard.stat().st_size <= SMALL
        return pyarrow.parquet.ParquetFile(
            shard,
            pre_buffer=False,
            buffer_size=0 if small else 2**16,
            read_dictionary=list(as_dictionary),
        )
    except (pyarrow.lib.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"'{shard}' cannot be read: {os.strerror(error.errno)}") from error
        with shard.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                raise DataError(
                    f"'{shard}' is only a pointer to a file in Git LFS; fetch it with git lfs pull"
                ) from error
        raise DataError(
            f"'{shard}' is not a whole parquet file ({shard.stat().st_size:,} bytes; "
            f"{first_line(error)}); download it again"
        ) from error


@contextmanager
def readable(shard: Path) -> Iterator[None]:
    """Raise DataError if reading a file inside this block fails."""
    import pyarrow

    try:
        yield
    except (pyarrow.lib.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"'{shard}' cannot be read: {os.strerror(error.errno)}") from error
        how = (
            "save it anew, compressed with snappy or zstd and no two columns of one name"
            if isinstance(error, NotImplementedError | KeyError)
            else "download it again"
        )
        raise DataError(f"'{shard}' cannot be read ({first_line(error)}); {how}") from error
