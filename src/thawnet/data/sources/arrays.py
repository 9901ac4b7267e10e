"""Images that are in memory already, as a source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from ..items import Items, Source, sha256_rows
from ..names import Names


def from_arrays(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    mirror_safe: bool = True,
) -> Source:
    """Return a source of (n, height, width, 3) images; labels, (n,): positions in `classes`.

    Every image trains or validates. Whoever holds arrays has put aside himself what is to test, so
    there is a test part, from which none is split off again, and opening it raises DataError.
    """
    items = Items(
        names=Names(f"X[{position}]" for position in range(len(images))),
        labels=labels,
        hashes=sha256_rows(image.tobytes() for image in images),
        read=images.__getitem__,
    )

    def open_part(part: str) -> Items:
        if part != "train":
            raise DataError("images in memory have no test part; train with no_test=True")
        return items

    return Source(
        name="arrays",
        classes=tuple(classes),
        parts=frozenset({"train", "test"}),
        open_part=open_part,
        mirror_safe=mirror_safe,
    )
