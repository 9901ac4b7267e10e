"""The input of the layers that train: activations from the cache, or computed live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...core import console
from ...core.errors import RunError
from ...data.views import fixed_views, random_views
from ..ranks import World
from .cache import FeatureStore, Origin, cached_features, fit_budget, is_cached
from .runtime import spread

Batch = Callable[[NDArray[np.int64]], torch.Tensor]


class Feed(Protocol):
    """Input of the layers that train, for the images of one part of the data."""

    cached: bool

    def epoch(self, number: int) -> Batch:
        """Return a function from positions (n,) to activations (n, ...) for one epoch of a run."""

    def ready(self, number: int) -> bool:
        """Return whether that epoch can begin at once, without computing anything first."""


class CachedFeed:
    """Features from the cache: an epoch shows every image in one view, the next in the next view.

    A view is computed when an epoch first shows it, so that training begins after the first view.
    All ranks open a view together, and only once, so that a single one may read it later.
    splits: all splits that one pass caches, beginning with the one that is read. first: the epoch
    that shows view 0.
    """

    cached = True

    def __init__(
        self, origin: Origin, splits: Sequence[int], views: int, world: World, first: int = 0
    ) -> None:
        self.origin = origin
        self.splits = splits
        self.views = views
        self.world = world
        self.first = first
        self._opened: dict[int, FeatureStore] = {}

    def epoch(self, number: int) -> Batch:
        """See Feed."""
        view = self._view(number)
        if view not in self._opened:
            title = f"caching features, view {view + 1} of {self.views}"
            with console.progress(title, len(self.origin.images)) as advance:
                stores = cached_features(self.origin, view, self.splits, advance, self.world)
            self._opened[view] = stores[0]
        store, device = self._opened[view], self.origin.machine.torch_device
        return lambda positions: store.at(positions, device)

    def ready(self, number: int) -> bool:
        """See Feed."""
        view = self._view(number)
        return view in self._opened or is_cached(self.origin, view, self.splits)

    def _view(self, number: int) -> int:
        return (number - self.first) % self.views


class LiveFeed:
    """Features computed live: views are rendered and pass through the trunk for every batch.

    views: number of fixed views of an image, shown as in CachedFeed; 0 draws fresh ones every
    epoch. first: the epoch that shows view 0.
    """

    cached = False

    def __init__(self, origin: Origin, split: int, views: int, seed: int, first: int = 0) -> None:
        self.origin = origin
        self.views = views
        self.seed = seed
        self.first = first
        self.trunk = origin.trunk(0, split) if split else None

    def epoch(self, number: int) -> Batch:
        """See Feed."""
        origin, count = self.origin, len(self.origin.images)
        if self.views:
            views = fixed_views(count, origin.augment, (number - self.first) % self.views)
        else:
            views = random_views(count, origin.augment, self.seed, number)

        def some(positions: NDArray[np.int64]) -> torch.Tensor:
            pictures = origin.pictures(positions, views)
            return pictures if self.trunk is None else self.trunk(pictures)

        def batch(positions: NDArray[np.int64]) -> torch.Tensor:
            x = spread(origin.machine, some, positions)
            if self.trunk is None:
                return x.contiguous(memory_format=torch.channels_last)
            # Autograd cannot save inference-mode tensors, so they are copied.
            return x.to(origin.machine.torch_dtype, copy=True)

        return batch

    def ready(self, number: int) -> bool:
        """See Feed."""
        return True


def make_feed(
    origin: Origin,
    splits: Sequence[int],
    views: int,
    seed: int,
    cached: bool | None,
    world: World,
    first: int = 0,
) -> Feed:
    """Return a feed of activations at splits[0], from the cache or live.

    splits: all splits that one pass caches. views: number of views; 0 draws fresh ones every epoch,
    which are not cached. cached: an earlier decision; None to decide by the disk budget. first: the
    epoch of the run that shows view 0, whose features are computed now.
    """
    if views and splits[0] and cached is not False:
        if fit_budget(origin, range(views), splits, world):
            feed = CachedFeed(origin, splits, views, world, first)
            feed.epoch(first)
            return feed
        if cached:
            raise RunError(
                "the features that this run reads no longer fit the disk budget; free some "
                "space, raise THAWNET_CACHE_GB, or accept another result with --allow-different"
            )
        console.say("features do not fit the disk budget (THAWNET_CACHE_GB): recomputed as needed")
    return LiveFeed(origin, splits[0], views, seed, first)
