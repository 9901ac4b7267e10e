"""What lies on a GPU is what the host holds; without one, nothing is kept twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thawnet.data.augment import Augment
from thawnet.data.device import squares_on
from thawnet.data.sources.open import open_source
from thawnet.data.store import ImageStore, open_store
from thawnet.data.views import random_views, render
from thawnet.image.preprocess import Preprocess, Reduction

SPEC = Preprocess(32, 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.fixture
def digits() -> ImageStore:
    source = open_source("digits")
    some = source.open_part("train").subset(np.arange(200))
    return open_store(some, Reduction(8), lambda done: None, 1)


def test_a_cpu_reads_the_store_itself(digits: ImageStore) -> None:
    assert squares_on(digits, torch.device("cpu")) is None


@pytest.mark.cuda
def test_pictures_from_a_gpus_memory_equal_those_from_the_hosts(digits: ImageStore) -> None:
    device = torch.device("cuda")
    some = digits.subset(np.array([7, 3, 30, 12]))
    views = random_views(4, Augment(rotate=20, zoom=0.2), seed=0, epoch=0)
    positions = np.array([2, 0, 3])
    resident = squares_on(some, device)
    assert resident is not None
    assert resident.is_cuda
    assert squares_on(digits, device) is resident
    there, here = (
        render(some, positions, views.at(positions), SPEC, Augment(), place).cpu()
        for place in (device, torch.device("cpu"))
    )
    assert torch.allclose(there, here, atol=1e-4)
