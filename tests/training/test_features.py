"""Frozen activations: computed once, the same numbers as without a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from thawnet.data.augment import Augment
from thawnet.data.sources import open_source
from thawnet.data.store import open_store
from thawnet.image.preprocess import Preprocess
from thawnet.model.backbone import Network
from thawnet.training.features import FeatureStore, Origin, cached_features
from thawnet.training.feeds import CachedFeed, LiveFeed, view_numbers
from thawnet.training.machine import Machine

CPU = torch.device("cpu")


def silent(done: int) -> None:
    pass


@pytest.fixture(params=["float32", "bfloat16"])
def origin(request: pytest.FixtureRequest, photos: Callable[..., Path]) -> Origin:
    source = open_source(str(photos({"a": 4, "b": 5})))
    store = open_store(source.open_part("train"), source.classes, 40, silent, 1)
    torch.manual_seed(0)
    return Origin(
        network=Network("mobilenetv2_100", 2, 32, "same"),
        weights="random",
        images=store,
        spec=Preprocess(64, 40, (0.5,) * 3, (0.5,) * 3),
        augment=Augment(flip=True, rotate=10.0),
        machine=Machine("cpu", request.param, torch.get_num_threads(), "no"),
    )


def stores_of(origin: Origin, split: int, views: int) -> list[FeatureStore]:
    found = [cached_features(origin, view, [split], silent) for view in range(views)]
    return [stores[0] for stores in found if stores is not None]


@pytest.mark.parametrize("split", [5, 8, 18])
def test_cached_activations_are_the_live_ones_of_the_same_views(origin: Origin, split: int) -> None:
    cached = CachedFeed(stores_of(origin, split, 3), 9, seed=4, device=CPU)
    live = LiveFeed(origin, split, views=3, seed=4)
    positions = np.array([8, 0, 3, 5])
    tolerance = 1e-5 if origin.machine.dtype == "float32" else 0.05
    for epoch in range(3):
        one, other = cached.epoch(epoch)(positions), live.epoch(epoch)(positions)
        assert one.shape == other.shape
        assert one.dtype == other.dtype == origin.machine.torch_dtype
        scale = other.float().abs().max()
        assert torch.allclose(one.float(), other.float(), atol=tolerance * float(scale))


def test_several_splits_in_one_pass_equal_each_alone(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    together = cached_features(origin, 0, [18, 6], silent)
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "other"))
    for split, store in zip([18, 6], together or [], strict=True):
        alone = cached_features(origin, 0, [split], silent)
        assert alone is not None
        positions = np.arange(9)
        assert torch.equal(store.at(positions), alone[0].at(positions))


def test_second_call_computes_nothing(origin: Origin) -> None:
    counted: list[int] = []
    cached_features(origin, 0, [8], counted.append)
    assert sum(counted) == 9
    cached_features(origin, 0, [8], counted.append)
    assert sum(counted) == 9


def test_key_changes_with_everything_that_decides_the_numbers(origin: Origin) -> None:
    import dataclasses

    keys = {
        origin.key(0, "blocks.3.1"),
        origin.key(1, "blocks.3.1"),
        origin.key(2, "blocks.3.1"),
        origin.key(0, "blocks.4.1"),
        dataclasses.replace(origin, weights="other").key(0, "blocks.3.1"),
        dataclasses.replace(origin, images=origin.images.subset(np.array([1]))).key(
            0, "blocks.3.1"
        ),
        dataclasses.replace(origin, spec=dataclasses.replace(origin.spec, size=96)).key(
            0, "blocks.3.1"
        ),
        dataclasses.replace(origin, augment=Augment(rotate=5.0)).key(2, "blocks.3.1"),
    }
    assert len(keys) == 8
    # A drawn view's limits do not touch the plain view.
    assert dataclasses.replace(origin, augment=Augment(rotate=5.0)).key(0, "x") == origin.key(
        0, "x"
    )


def test_over_the_disk_budget_nothing_is_cached(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAWNET_CACHE_GB", "0.000001")
    assert cached_features(origin, 0, [8], silent) is None


def test_over_as_many_epochs_as_views_each_image_shows_each_view_once() -> None:
    shown = np.stack([view_numbers(100, 3, 7, epoch) for epoch in range(3)])
    assert (np.sort(shown, axis=0) == np.arange(3)[:, None]).all()
    assert len(set(shown[0])) == 3
