"""The real handwritten digits that come with scikit-learn: data without a download."""

from __future__ import annotations

import numpy as np

from ..items import Items, Source, sha256_rows


def digits() -> Source:
    """Return the 1,797 digits of 8 x 8 pixels, grey as RGB, in ten classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 0..16 -> 0..255
    images = np.repeat(grey[..., None], 3, axis=-1)  # (1797, 8, 8, 3)
    items = Items(
        names=[f"digits/{position}" for position in range(len(images))],
        labels=bunch.target.astype(np.int64),
        hashes=sha256_rows(image.tobytes() for image in images),
        read=images.__getitem__,
    )
    return Source(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        parts=frozenset({"train"}),
        open_part=lambda part: items,
        mirror_safe=False,
    )
