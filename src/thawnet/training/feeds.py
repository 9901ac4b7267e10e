"""What a part of the network reads: cached activations where they are fixed, else live ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .. import console
from ..data.views import Views, fixed_views, random_views
from ..errors import RunError
from ..model.backbone import Network
from ..recipe import Recipe
from .features import FeatureStore, Origin, cached_features
from .plan import fit
from .ranks import World

Batch = Callable[[NDArray[np.int64]], torch.Tensor]


class Feed(Protocol):
    """Gives the input of the part that trains, for any images of one part of the data."""

    def epoch(self, number: int) -> Batch:
        """Return a function from positions (n,) to activations (n, ...) for one epoch."""


@dataclass(frozen=True)
class CachedFeed:
    """Reads features; in each epoch every image shows one of its views, in a seeded turn."""

    stores: Sequence[FeatureStore]
    count: int
    seed: int
    device: torch.device

    def epoch(self, number: int) -> Batch:
        """See Feed."""
        numbers = view_numbers(self.count, len(self.stores), self.seed, number)

        def batch(positions: NDArray[np.int64]) -> torch.Tensor:
            chosen = numbers[positions]
            whole = self.stores[0].at(positions)
            for view, store in enumerate(self.stores[1:], start=1):
                mask = chosen == view
                if mask.any():
                    whole[torch.from_numpy(mask)] = store.at(positions[mask])
            return whole.to(self.device, non_blocking=True)

        return batch


class LiveFeed:
    """Renders views and runs the trunk on every batch.

    views: how many fixed views an image has, as if cached; 0 draws fresh ones every epoch.
    """

    def __init__(self, origin: Origin, split: int, views: int, seed: int) -> None:
        self.origin = origin
        self.views = views
        self.seed = seed
        self.trunk = origin.trunk(0, split) if split else None

    def epoch(self, number: int) -> Batch:
        """See Feed."""
        origin = self.origin
        views = self._views(number)

        def batch(positions: NDArray[np.int64]) -> torch.Tensor:
            pictures = origin.pictures(positions, views)
            if self.trunk is None:
                return pictures.contiguous(memory_format=torch.channels_last)
            # Activations leave inference mode by a copy, so that autograd may save them.
            return self.trunk(pictures).to(origin.machine.torch_dtype, copy=True)

        return batch

    def _views(self, number: int) -> Views:
        count, augment = len(self.origin.images), self.origin.augment
        if self.views == 0:
            return random_views(count, augment, self.seed, number)
        chosen = view_numbers(count, self.views, self.seed, number)
        drawn = (fixed_views(count, augment, view) for view in range(self.views))
        return Views.chosen(drawn, chosen)


def view_numbers(count: int, views: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return which view each image shows in an epoch; over `views` epochs each shows all."""
    start = np.random.default_rng([seed, 0x51EB]).integers(views, size=count)
    return (start + epoch) % views


def make_feed(
    origin: Origin, splits: Sequence[int], views: int, seed: int, cached: bool | None, world: World
) -> tuple[Feed, bool]:
    """Return the cached activations of some views at splits[0], or live ones, and which they are.

    splits: all that one pass shall cache. views: 0 draws fresh ones every epoch, for which there
    is no cache. cached: what was decided before, None to decide by the disk budget.
    """
    split, images = splits[0], origin.images
    live = LiveFeed(origin, split, views, seed)
    if views == 0 or split == 0 or cached is False:
        return live, False
    stores = []
    started = time.perf_counter()
    with console.progress("caching features", len(images) * views) as advance:
        for view in range(views):
            found = cached_features(origin, view, splits, advance, world)
            if found is None and cached:
                raise RunError(
                    "the features that this run reads no longer fit the disk budget; free some "
                    "space, raise THAWNET_CACHE_GB, or go on with other bits: --allow-different"
                )
            if found is None:
                console.say(
                    "features do not fit the disk budget (THAWNET_CACHE_GB): recomputed as needed"
                )
                return live, False
            stores.append(found[0])
    spent = time.perf_counter() - started
    if spent > 5:
        console.say(f"cached features: {len(images):,} images, {views} views, {spent:.0f} s")
    return CachedFeed(stores, len(images), seed, origin.machine.torch_device), True


def splits_of(
    recipe: Recipe, network: Network, number: int, views: int, images: int, held_out: bool
) -> list[int]:
    """Return the splits that a phase's pass over so many images caches, its own first.

    One pass also fills the caches of a later phase that reads the same views further up.
    """
    own = network.split(recipe.phases[number].train_from)
    splits = [own]
    for later in recipe.phases[number + 1 :]:
        place = network.split(later.train_from)
        if 0 < place < own and (held_out or fit(later, images).views >= views):
            splits.append(place)
    return splits
