"""Image files on disk as Items, hashed in parallel, and the reading of single items."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError, RunError
from ..core.memory import available_cores
from ..image.files import read_file
from .items import Items, Raw, Watch
from .names import Names
from .parallel import blocks, in_order

MOST_HASH_WORKERS = 8  # reading waits for the disk; more threads only queue
HASH_BLOCK = 64


def listed_items(
    root: Path,
    names: Names,
    labels: NDArray[np.int64],
    part: str,
    watch: Watch,
    groups: NDArray[np.int64] | None = None,
) -> Items:
    """Return the files `names` under `root` as items, hashing them behind a progress bar."""

    def digests(rows: range) -> bytes:
        return b"".join(_hash_or_name(root, names[row]) for row in rows)

    joined = bytearray()
    workers = min(MOST_HASH_WORKERS, available_cores())
    with watch(f"reading {part}", len(names)) as advance:
        for block in in_order(digests, blocks(len(names), HASH_BLOCK), workers):
            joined += block
            advance(len(block) // 32)
    return Items(
        names=names,
        labels=labels,
        hashes=np.frombuffer(joined, np.uint8).reshape(-1, 32),
        read=lambda position: read_file(root / names[position]),
        groups=groups,
    )


def _hash_or_name(root: Path, name: str) -> bytes:
    """Return a file's hash, or its `hash_of_unread`; the store then lists the file as broken."""
    try:
        return hashlib.sha256(read_file(root / name)).digest()
    except (OSError, ImageError):
        return hash_of_unread(name)


def hash_of_unread(name: str) -> bytes:
    """Return the placeholder hash of a file that could not be read when it was listed."""
    return hashlib.sha256(os.fsencode(name)).digest()


def read_or_reason(items: Items, position: int) -> Raw | str:
    """Return an image as its source holds it, or the reason why it cannot be read.

    Raises RunError if it could be read when the images were listed.
    """
    try:
        return items.read(position)
    except ImageError as error:
        return str(error)
    except OSError as error:
        name, reason = items.names[position], error.strerror or str(error)
        if items.hashes[position].tobytes() != hash_of_unread(name):
            # The image is not broken, but a store would list it as broken for ever.
            raise RunError(
                f"'{name}' was there when the images were listed and cannot be read now "
                f"({reason}); bring the data back and start again"
            ) from error
        return "no such file" if isinstance(error, FileNotFoundError) else reason
