"""Images in memory are a source of which every one trains or validates."""

from __future__ import annotations

import numpy as np
import pytest

from support.shares import HELD_BACK
from thawnet.core.errors import DataError
from thawnet.data.sources.arrays import from_arrays
from thawnet.data.splits import arrange


def test_no_image_is_held_back_and_copies_are_known() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 5, 3), np.uint8)
    images[7] = images[3]
    labels = np.arange(30) % 2
    lists = arrange(from_arrays(images, labels, ("even", "odd")), HELD_BACK)
    assert lists.val is None
    assert lists.train.names[12] == "X[12]"
    assert (lists.train.labels == labels).all()
    assert all((lists.train.read(row) == images[row]).all() for row in range(30))
    assert lists.train.ties[7] == lists.train.ties[3]
    assert len(set(lists.train.ties.tolist())) == 29
    with pytest.raises(DataError, match="no test part; train with no_test=True"):
        lists.test()
