"""DATA, one name or path, to a source of labelled images."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError, suggest
from .cifar import LAYOUTS, open_cifar
from .digits import digits
from .download import Tell
from .folders import from_class_folders
from .items import Source
from .shards import from_shards

NAMED = (*LAYOUTS, "digits")


def open_source(data: str, data_dir: Path | None = None, tell: Tell = lambda text: None) -> Source:
    """Find out what DATA is and list its classes and parts, downloading what is known by name.

    `tell` receives a line for a person: from where it came.
    Raises DataError when nothing is there or what is there can not be trained on.
    """
    if data == "digits":
        return digits()
    if data in LAYOUTS:
        return open_cifar(data, data_dir, tell)
    path = Path(data) if data_dir is None else data_dir / data
    if not path.exists():
        raise DataError(
            f"no data at '{data}': no such file or folder, and not a known data set "
            f"({suggest(data, NAMED)})"
        )
    return _from_folder(path)


def _from_folder(path: Path) -> Source:
    if not path.is_dir():
        raise DataError(
            f"no data at '{path}': expected a folder of class folders or of parquet shards"
        )
    shards = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    return from_shards(path, shards) if shards else from_class_folders(path)
