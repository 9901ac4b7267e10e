"""Colour operations act on the images they were drawn for, and on no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thawnet.data.augment import Augment
from thawnet.data.colour import OPERATIONS, erase, recolour
from thawnet.data.views import random_views


def photos(count: int) -> torch.Tensor:
    """Return noise that gets darker to the right: neither flat nor already equalised."""
    noise = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return 30 + 190 * noise * torch.linspace(1, 0.2, 32)


@pytest.mark.parametrize("number", range(1, len(OPERATIONS)))
def test_an_operation_changes_its_image_alone(number: int) -> None:
    pixels = photos(3)
    got = recolour(pixels, np.array([[0], [number], [0]]), 15)
    assert torch.equal(got[[0, 2]], pixels[[0, 2]].round())
    assert not torch.equal(got[1], pixels[1].round())
    assert got.min() >= 0
    assert got.max() <= 255


def test_magnitudes_are_torchvisions() -> None:
    """RandAugment's table there: 30 leaves four bits, and changes the others by nine tenths."""
    grey = torch.full((1, 3, 4, 4), 100.0)
    brighter, darker = (recolour(grey, np.array([[number]]), 30)[0, 0, 0, 0] for number in (5, 6))
    assert (int(brighter), int(darker)) == (190, 10)
    assert int(recolour(grey, np.array([[5]]), 10)[0, 0, 0, 0]) == 130
    assert recolour(photos(1), np.array([[3]]), 30).unique().remainder(16).eq(0).all()
    assert recolour(photos(1), np.array([[3]]), 15).unique().remainder(4).eq(0).all()
    assert int(recolour(grey, np.array([[4]]), 20)[0, 0, 0, 0]) == 155  # solarised from 85 on


def test_batch_does_not_decide_what_an_image_becomes() -> None:
    pixels = photos(len(OPERATIONS))
    operations = np.arange(len(OPERATIONS))[:, None].repeat(2, axis=1)
    whole = recolour(pixels, operations, 9)
    for row in range(len(pixels)):
        assert torch.equal(recolour(pixels[[row]], operations[[row]], 9)[0], whole[row])


def test_rectangle_is_erased_and_nothing_else() -> None:
    pixels = torch.ones(2, 3, 10, 10)
    got = erase(pixels, torch.tensor([[0.2, 0.5, 0.6, 1.0], [0.0, 0.0, 0.0, 0.0]]))
    assert got[0].sum() == 3 * (100 - 4 * 5)
    assert (got[0, :, 5:, 2:6] == 0).all()
    assert torch.equal(got[1], pixels[1])


def test_crops_lie_inside_the_image_and_erased_share_is_as_asked() -> None:
    views = random_views(4000, Augment(crop=0.3, erase=0.4), seed=1, epoch=2)
    area = views.width * views.height
    assert area.min() >= 0.25  # an edge cut off at the image's side makes it a little smaller
    assert area.max() <= 1
    assert (np.abs(views.shift_x) + views.width <= 1 + 1e-6).all()
    assert (np.abs(views.shift_y) + views.height <= 1 + 1e-6).all()
    assert (views.erased.any(axis=1)).mean() == pytest.approx(0.4, abs=0.03)
    aspect = (views.width / views.height)[area < 0.5]  # larger ones are cut off
    assert aspect.min() == pytest.approx(3 / 4, abs=0.01)
    assert aspect.max() == pytest.approx(4 / 3, abs=0.01)


def test_erased_rectangles_have_the_areas_and_aspects_of_the_paper() -> None:
    left, top, right, bottom = random_views(20_000, Augment(erase=1), seed=1, epoch=2).erased.T
    area, aspect = (right - left) * (bottom - top), (right - left) / (bottom - top)
    assert area.min() == pytest.approx(0.02, abs=1e-3)
    assert area.max() == pytest.approx(0.33, abs=1e-3)
    assert aspect.min() == pytest.approx(0.3, abs=0.01)
    assert aspect.max() == pytest.approx(3.3, abs=0.05)
