"""A file of features: what the network sees in each image, a row for each, as .npy or .parquet."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .core.errors import UsageError
from .core.files import new_file
from .core.packages import require_installed
from .core.text import command_line, escaped

SUFFIXES = (".npy", ".parquet")
TOGETHER = 1024  # rows of a parquet file that are written at once


class FeatureFile(Protocol):
    """An open file of features; None stands for an image that could not be read."""

    def add(self, name: str, features: NDArray[np.float32] | None) -> None:
        """Write the row of the next image."""

    def end(self) -> None:
        """Write what is left, when all images are there."""


@contextmanager
def feature_file(path: Path, count: int) -> Iterator[FeatureFile]:
    """Open a file for the features of `count` images; it appears once it is complete.

    A .npy file holds an array (count, d) of float32; the row of an image that could not be read is
    NaN. A .parquet file has the columns `image` and `features`, null for such an image.
    path: see `require_writable`.
    """
    with (
        new_file(path) as file,
        closing(_Parquet(file) if path.suffix == ".parquet" else _Npy(file, count)) as opened,
    ):
        yield opened
        opened.end()


def require_writable(path: Path) -> None:
    """Raise UsageError for a suffix not in SUFFIXES, and for parquet where pyarrow is missing."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--features '{path}': name a file that ends in .npy or .parquet")
    if path.suffix == ".parquet":
        install = command_line("pip", "install", "pyarrow")
        require_installed("writing parquet", ("pyarrow",), install)


class _Npy:
    def __init__(self, file: IO[bytes], count: int) -> None:
        self.file, self.count = file, count
        self.width = 0  # unknown before the first image that can be read
        self.unread = 0  # rows before it

    def add(self, name: str, features: NDArray[np.float32] | None) -> None:
        if features is not None and not self.width:
            self.width = len(features)
            shape = (self.count, self.width)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self.file, header)
            self._write(np.full((self.unread, self.width), np.nan))
        if self.width:
            self._write(np.full(self.width, np.nan) if features is None else features)
        else:
            self.unread += 1

    def end(self) -> None:
        if not self.width:
            np.save(self.file, np.empty((self.count, 0), np.float32))

    def close(self) -> None:
        """Leave the file to whoever opened it."""

    def _write(self, rows: NDArray[Any]) -> None:
        self.file.write(rows.astype("<f4").tobytes())


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        arrow: Any = importlib.import_module("pyarrow")
        columns = {"image": arrow.string(), "features": arrow.list_(arrow.float32())}
        self.schema = arrow.schema(list(columns.items()))
        self.writer = importlib.import_module("pyarrow.parquet").ParquetWriter(file, self.schema)
        self.table = arrow.Table
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, features: NDArray[np.float32] | None) -> None:
        self.rows.append({"image": escaped(name), "features": features})
        if len(self.rows) == TOGETHER:
            self._write()

    def end(self) -> None:
        self._write()

    def close(self) -> None:
        """Write the footer, while the file is open; without one, a stop would do it too late."""
        self.writer.close()

    def _write(self) -> None:
        self.writer.write_table(self.table.from_pylist(self.rows, self.schema))
        self.rows.clear()
