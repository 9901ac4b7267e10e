"""Frozen activations: computed once, the same numbers as without a cache."""

from __future__ import annotations

import copy
import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from thawnet.data.augment import Augment
from thawnet.data.sources.open import open_source
from thawnet.data.store import ImageStore, open_store
from thawnet.image.preprocess import Preprocess, Reduction
from thawnet.model.backbone import Network
from thawnet.training.machine import Machine
from thawnet.training.ranks import ALONE
from thawnet.training.trunk import cache
from thawnet.training.trunk.cache import Origin, cached_features, fit_budget, is_cached, shape_at
from thawnet.training.trunk.feeds import LiveFeed, make_feed
from thawnet.training.trunk.runtime import pool

CPU = torch.device("cpu")


def silent(done: int) -> None:
    pass


@pytest.fixture(params=["float32", "bfloat16"])
def origin(request: pytest.FixtureRequest, photos: Callable[..., Path]) -> Origin:
    source = open_source(str(photos({"a": 4, "b": 5})))
    store = open_store(source.open_part("train"), Reduction(40), silent, 1)
    torch.manual_seed(0)
    return Origin(
        network=Network("mobilenetv2_100", 2, 64, "same"),
        weights="random",
        images=store,
        spec=Preprocess(64, 40, (0.5,) * 3, (0.5,) * 3),
        augment=Augment(flip=True, rotate=10.0),
        machine=Machine("cpu", request.param, torch.get_num_threads(), "no"),
    )


@pytest.mark.parametrize("split", [5, 8, 18])
def test_cached_activations_are_the_live_ones_of_the_same_views(origin: Origin, split: int) -> None:
    cached = make_feed(origin, [split], 3, 4, None, ALONE, first=2)
    live = LiveFeed(origin, split, views=3, seed=4, first=2)
    assert cached.cached
    positions = np.array([8, 0, 3, 5])
    tolerance = 1e-5 if origin.machine.dtype == "float32" else 0.05
    for epoch in range(2, 6):
        one, other = cached.epoch(epoch)(positions), live.epoch(epoch)(positions)
        assert one.shape == other.shape
        assert one.dtype == other.dtype == origin.machine.torch_dtype
        scale = other.float().abs().max()
        assert torch.allclose(one.float(), other.float(), atol=tolerance * float(scale))


def test_several_splits_in_one_pass_equal_each_alone(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    origin = dataclasses.replace(origin, cuts=(18, 6))
    together = cached_features(origin, 0, [18, 6], silent)
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "other"))
    for split, store in zip([18, 6], together, strict=True):
        (alone,) = cached_features(origin, 0, [split], silent)
        positions = np.arange(9)
        assert torch.equal(store.at(positions, CPU), alone.at(positions, CPU))


class AsOnAGpu(Machine):
    """Decides as on a GPU and computes on the CPU."""

    @property
    def torch_device(self) -> torch.device:
        return CPU


def test_a_gpu_gets_blocks_of_one_size_whatever_the_number_of_images(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def render(images: ImageStore, positions: NDArray[np.int64], *others: Any) -> torch.Tensor:
        sizes.append(len(positions))
        return cache_render(images, positions, *others)

    cache_render = cache.render
    monkeypatch.setattr(cache, "GPU_BLOCK", 4)
    monkeypatch.setattr(cache, "render", render)
    origin = dataclasses.replace(origin, machine=AsOnAGpu("cuda", origin.machine.dtype, 1, "no"))
    (store,) = cached_features(origin, 0, [5], silent)
    assert sizes == [4, 4, 4]  # of nine images
    found = store.at(np.arange(9), CPU)
    assert found.shape[0] == 9
    live = LiveFeed(origin, 5, views=1, seed=0).epoch(0)(np.arange(9))
    scale = float(live.float().abs().max())
    assert torch.allclose(found.float(), live.float(), atol=0.05 * scale)


@pytest.mark.cuda
def test_features_from_a_gpu_are_those_from_the_cpu(origin: Origin) -> None:
    there = dataclasses.replace(origin, machine=dataclasses.replace(origin.machine, device="cuda"))
    positions = np.arange(9)
    one, other = (
        cached_features(each, 0, [8], silent)[0].at(positions, CPU).float()
        for each in (origin, there)
    )
    tolerance = 1e-3 if origin.machine.dtype == "float32" else 0.05
    assert torch.allclose(one, other, atol=tolerance * float(one.abs().max()))


def test_coarse_layers_that_will_train_are_in_the_precision_they_train_in(origin: Origin) -> None:
    def at(split: int, thaws: int | None) -> torch.Tensor:
        some = dataclasses.replace(origin, cuts=(13,), thaws=thaws)
        return LiveFeed(some, split, views=1, seed=0).epoch(0)(np.arange(9)).float()

    assert torch.equal(at(13, 13), at(13, None))
    exact, passing = at(18, None), at(18, 13)
    assert torch.allclose(passing, exact, atol=0.05 * float(exact.abs().max()))
    # Not merely rounded at its end, as what stays frozen is.
    assert torch.equal(passing, exact) == (origin.machine.dtype == "float32")


def test_frozen_layers_are_prepared_for_onnx_runtime_once(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> object:
        raise AssertionError("exported again")

    first = LiveFeed(origin, 8, views=1, seed=0).epoch(0)(np.arange(3))
    again = dataclasses.replace(origin, network=copy.deepcopy(origin.network))
    changed = dataclasses.replace(origin, network=copy.deepcopy(origin.network))
    next(changed.network.parameters()).data *= 2
    with monkeypatch.context() as patch:
        patch.setattr("thawnet.training.trunk.runtime.exported", forbidden)
        assert torch.equal(LiveFeed(again, 8, views=1, seed=0).epoch(0)(np.arange(3)), first)
        with pytest.raises(AssertionError, match="exported again"):
            LiveFeed(changed, 8, views=1, seed=0)


def test_second_call_computes_nothing(origin: Origin) -> None:
    counted: list[int] = []
    cached_features(origin, 0, [8], counted.append)
    assert sum(counted) == 9
    cached_features(origin, 0, [8], counted.append)
    assert sum(counted) == 9


def test_key_changes_with_everything_that_decides_the_numbers(origin: Origin) -> None:
    keys = {
        origin.key(0, 9),
        origin.key(1, 9),
        origin.key(2, 9),
        origin.key(0, 13),
        dataclasses.replace(origin, weights="other").key(0, 9),
        dataclasses.replace(origin, images=origin.images.subset(np.array([1]))).key(0, 9),
        dataclasses.replace(origin, spec=dataclasses.replace(origin.spec, size=96)).key(0, 9),
        dataclasses.replace(origin, augment=Augment(rotate=5.0)).key(2, 9),
        dataclasses.replace(origin, cuts=(6,)).key(0, 9),
        dataclasses.replace(origin, thaws=7).key(0, 9),
    }
    assert len(keys) == 10
    # What is cut behind a split does not touch it.
    assert dataclasses.replace(origin, cuts=(13,)).key(0, 9) == origin.key(0, 9)
    assert dataclasses.replace(origin, thaws=9).key(0, 9) == origin.key(0, 9)
    # A drawn view's limits do not touch the plain view.
    assert dataclasses.replace(origin, augment=Augment(rotate=5.0)).key(0, 9) == origin.key(0, 9)


def test_over_the_disk_budget_nothing_is_cached(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAWNET_CACHE_GB", "0.000001")
    assert not fit_budget(origin, [0], [8])
    assert not make_feed(origin, [8], 1, 0, None, ALONE).cached


def test_all_views_count_against_the_disk_budget(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = 9 * math.prod(shape_at(origin.network, 8)) * origin.machine.torch_dtype.itemsize
    monkeypatch.setenv("THAWNET_CACHE_GB", str(2 * one / 1e9))
    assert fit_budget(origin, range(2), [8])
    assert not fit_budget(origin, range(3), [8])
    cached_features(origin, 0, [8], silent)  # what is there already counts no more
    assert fit_budget(origin, range(3), [8])


def test_each_epoch_shows_the_next_view_computed_when_it_is_first_shown(origin: Origin) -> None:
    feed = make_feed(origin, [8], 3, 0, None, ALONE, first=4)
    assert [is_cached(origin, view, [8]) for view in range(3)] == [True, False, False]
    assert feed.ready(4)
    assert not feed.ready(5)
    positions = np.arange(9)
    first = feed.epoch(4)(positions)
    assert not torch.equal(feed.epoch(5)(positions), first)
    assert [is_cached(origin, view, [8]) for view in range(3)] == [True, True, False]
    assert feed.ready(5)
    shutil.rmtree(origin.folder(0, 8))  # opened once: nothing is asked of the other ranks again
    assert torch.equal(feed.epoch(7)(positions), first)
    assert not is_cached(origin, 0, [8])


def test_threads_that_share_out_frozen_layers_compute_on_a_core_each() -> None:
    machine = Machine("cpu", "float32", 2, "no", "chip")
    before = torch.get_num_threads()

    def threads(rows: torch.Tensor) -> int:
        rows.relu()  # many enough that torch would divide them among the threads it was given
        return torch.get_num_threads()

    counts = list(pool(machine).map(threads, [torch.ones(1 << 20)] * 8))
    assert (counts, torch.get_num_threads()) == ([1] * 8, before)
