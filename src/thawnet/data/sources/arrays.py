"""Sources of images in memory: a caller's arrays, and scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from ..items import Items, Source, sha256_rows
from ..names import Names


def array_items(images: NDArray[np.uint8], labels: NDArray[np.int64], name: str) -> Items:
    """Return (n, height, width, 3) images as items; name: a format string for their positions."""
    return Items(
        names=Names(map(name.format, range(len(images)))),
        labels=labels,
        hashes=sha256_rows(image.tobytes() for image in images),
        read=lambda position: np.ascontiguousarray(images[position]),
    )


def from_arrays(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    mirror_safe: bool = True,
) -> Source:
    """Return a source of (n, height, width, 3) images; labels, (n,): indices into `classes`.

    Every image trains or validates: a caller with arrays has set test images aside already. The
    source claims a test part, so that none is split off; opening it raises DataError.
    """
    items = array_items(images, labels, "X[{}]")

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


def digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, grey as RGB."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 0..16 -> 0..255
    images = np.repeat(grey[..., None], 3, axis=-1)  # (1797, 8, 8, 3)
    items = array_items(images, bunch.target.astype(np.int64), "digits/{}")
    return Source(
        name="digits",
        classes=tuple("0123456789"),
        parts=frozenset({"train"}),
        open_part=lambda part: items,
        mirror_safe=False,
    )
