"""What the network as it came sees in images: before anything was learnt or thawed."""

from __future__ import annotations

from collections.abc import Callable

from ..data.items import Source
from ..data.store import ImageStore
from ..image.preprocess import Preprocess
from ..model.weights import Weights
from ..recipe import Recipe
from .context import origin_of
from .machine import Machine
from .plan import layers_of
from .ranks import World
from .setup import build_network
from .trunk.feeds import Batch, CachedFeed, Feed, make_feed


def pretrained_features(
    recipe: Recipe,
    source: Source,
    weights: Weights,
    spec: Preprocess,
    machine: Machine,
    world: World,
) -> Callable[[ImageStore], Feed]:
    """Return what gives the features, (n, d), of the network as it came, for any images.

    They are those that a run on the same machine has cached. Every rank has to ask for the same
    images in the same order, and computes a share.
    """
    network = build_network(recipe, source, weights, machine)
    splits = [network.stage_of(layer) for layer in layers_of(recipe, network)]
    pooled = len(network.stages) - 1

    def feed_of(images: ImageStore) -> Feed:
        origin = origin_of(network, splits, recipe, source, weights, spec, machine, images)
        return make_feed(origin, [pooled], 1, 0, None, world)[0]

    return feed_of


def cached_reader(feed: Feed) -> Batch | None:
    """Return what reads the features of a feed, None where they are not cached."""
    return feed.epoch(0) if isinstance(feed, CachedFeed) else None
