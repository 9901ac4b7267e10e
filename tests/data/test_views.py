"""Views: one affine resample that does what it says, whatever the batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from thawnet.data.augment import Augment
from thawnet.data.store import ImageStore
from thawnet.data.views import (
    Views,
    fixed_views,
    plain_views,
    random_views,
    render,
)
from thawnet.image.preprocess import Enlargement, Preprocess

CPU = torch.device("cpu")
SPEC = Preprocess(size=96, side=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def store_of(pixels: np.ndarray) -> ImageStore:
    count, side = pixels.shape[:2]
    return ImageStore(
        pixels=pixels.reshape(-1),
        offsets=np.arange(count) * side * side * 3,
        shapes=np.full((count, 2), side, np.int32),
        all_labels=np.zeros(count, np.int64),
        all_hashes=np.zeros((count, 32), np.uint8),
        all_names=[str(position) for position in range(count)],
        rows=np.arange(count),
        side=side,
        content="",
    )


@pytest.fixture
def noise() -> ImageStore:
    return store_of(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8))


def shown(images: ImageStore, views: Views, spec: Preprocess = SPEC) -> torch.Tensor:
    return render(images, np.arange(len(images)), views, spec, Augment(), CPU)


@pytest.mark.parametrize("enlarge", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [33, 96])
def test_plain_view_is_enlarged_as_torch_does_and_normalised(
    noise: ImageStore, enlarge: Enlargement, size: int
) -> None:
    spec = dataclasses.replace(SPEC, enlarge=enlarge, size=size)
    pixels = torch.from_numpy(noise.batch(np.arange(6))).permute(0, 3, 1, 2).double()
    wanted = F.interpolate(pixels, size=(size, size), mode=enlarge, align_corners=False)
    got = shown(noise, plain_views(6, Augment()), spec)
    assert torch.allclose((got.double() * 0.5 + 0.5) * 255, wanted, atol=1e-3)


def test_an_image_is_enlarged_alike_in_every_batch(noise: ImageStore) -> None:
    views, some = plain_views(6, Augment()), np.array([1, 2])
    alone = render(noise, some, views.at(some), SPEC, Augment(), CPU)
    assert torch.equal(alone, shown(noise, views)[1:3])


def test_affine_path_gives_the_numbers_of_the_plain_one(noise: ImageStore) -> None:
    tiny = np.full(6, 1e-6, np.float32)
    for mirror in (False, True):
        plain = plain_views(6, Augment(), mirror)
        nearly = dataclasses.replace(plain, shift_x=tiny)
        assert torch.allclose(shown(noise, plain), shown(noise, nearly), atol=2e-3)


def test_moved_views_show_the_middle_of_larger_images_as_plain_ones_do() -> None:
    spec = dataclasses.replace(SPEC, size=32, side=40)
    # Waves that no resampling loses, as other pixels are hit.
    place = np.arange(40)
    wave = 128 + 60 * np.sin(place[:, None] / 6) + 60 * np.cos(place[None] / 5)
    images = store_of(np.repeat(wave[None, :, :, None], 3, axis=3).astype(np.uint8))
    plain = plain_views(1, Augment())
    nearly = dataclasses.replace(plain, shift_x=np.full(1, 1e-6, np.float32))
    one, other = (
        render(images, np.arange(1), views, spec, Augment(), CPU) for views in (plain, nearly)
    )
    assert torch.allclose(one, other, atol=0.02)


def test_mirrored_view_is_the_mirror(noise: ImageStore) -> None:
    plain, mirrored = (
        shown(noise, plain_views(6, Augment())),
        shown(noise, plain_views(6, Augment(), mirror=True)),
    )
    assert torch.equal(plain.flip(-1), mirrored)


def test_quarter_turn_is_a_rotation_of_the_picture(noise: ImageStore) -> None:
    views = dataclasses.replace(plain_views(6, Augment()), angle=np.full(6, np.pi / 2, np.float32))
    turned = shown(noise, views)
    assert torch.allclose(
        turned, shown(noise, plain_views(6, Augment())).rot90(1, (-2, -1)), atol=1e-3
    )


def test_mirrored_turn_is_the_turn_of_the_mirrored_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    turned = dataclasses.replace(plain_views(6, Augment()), angle=np.full(6, 0.5, np.float32))
    both = dataclasses.replace(turned, mirror=np.full(6, -1, np.float32))
    one = shown(store_of(pixels), both)
    other = shown(store_of(pixels[:, :, ::-1].copy()), turned)
    assert torch.allclose(one, other, atol=1e-3)


def test_random_views_stay_inside_their_limits() -> None:
    augment = Augment(flip=True, rotate=36.0, shift=0.1, zoom=0.2)
    views = random_views(20_000, augment, seed=1, epoch=2)
    assert np.abs(np.rad2deg(views.angle)).max() == pytest.approx(36, abs=0.1)
    assert 0.48 < (views.mirror < 0).mean() < 0.52
    assert views.width.min() == pytest.approx(1 / 1.2, abs=1e-3)
    assert views.width.max() == pytest.approx(1.2, abs=1e-3)
    assert np.abs(views.shift_x).max() == pytest.approx(0.2, abs=1e-3)


def test_view_depends_on_seed_epoch_and_image_not_on_the_batch(noise: ImageStore) -> None:
    augment = Augment(rotate=36.0)
    views = random_views(6, augment, seed=3, epoch=1)
    whole = shown(noise, views)
    some = np.array([4, 1])
    assert torch.equal(render(noise, some, views.at(some), SPEC, Augment(), CPU), whole[[4, 1]])
    assert (views.angle != random_views(6, augment, seed=3, epoch=2).angle).all()
    assert (views.angle != random_views(6, augment, seed=4, epoch=1).angle).all()


def test_cached_views_are_plain_then_mirrored_then_drawn() -> None:
    augment = Augment(flip=True, shift=0.1)
    first, second, third = (fixed_views(50, augment, number) for number in range(3))
    assert (first.mirror == 1).all()
    assert (second.mirror == -1).all()
    assert np.abs(third.shift_x).min() > 0
    unflipped = fixed_views(50, dataclasses.replace(augment, flip=False), 1)
    assert (unflipped.mirror == 1).all()


def test_photos_are_shown_through_the_middle_crop() -> None:
    pixels = np.zeros((1, 110, 110, 3), np.uint8)
    pixels[:, 7:103, 7:103] = 255
    spec = dataclasses.replace(SPEC, side=110)
    plain = render(store_of(pixels), np.array([0]), plain_views(1, Augment()), spec, Augment(), CPU)
    assert plain.shape == (1, 3, 96, 96)
    assert plain.min() == 1.0
