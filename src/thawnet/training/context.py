"""A run: everything that its phases and its finish need, and what a report is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.items import Source
from ..data.splits import TrainTest
from ..data.store import ImageStore
from ..image.preprocess import Preprocess
from ..metrics.result import Result, Validation
from ..model.backbone import Network
from ..model.weights import Weights
from ..recipe import Recipe, TrainOptions
from .checkpoint import RunState
from .machine import Machine
from .plan import Plan
from .ranks import World
from .trunk.cache import Origin
from .trunk.feeds import Batch


@dataclass
class Run:
    """Everything a phase needs. `state` is what changes and what a checkpoint holds."""

    folder: Path
    options: TrainOptions
    recipe: Recipe
    machine: Machine
    world: World
    source: Source
    lists: TrainTest
    spec: Preprocess
    weights: Weights
    network: Network
    train: ImageStore
    val: ImageStore
    plan: Plan
    state: RunState

    def origin(self, images: ImageStore) -> Origin:
        """Return what decides the trunk's output for some images."""
        splits = [phase.split for phase in self.plan]
        return origin_of(
            self.network,
            splits,
            self.recipe,
            self.source,
            self.weights,
            self.spec,
            self.machine,
            images,
        )


def origin_of(
    network: Network,
    splits: Sequence[int],
    recipe: Recipe,
    source: Source,
    weights: Weights,
    spec: Preprocess,
    machine: Machine,
    images: ImageStore,
) -> Origin:
    """Return what decides the output of a network's frozen layers for some images of a source.

    splits: of both phases.
    """
    augment = recipe.augment
    if not source.mirror_safe:
        augment = dataclasses.replace(augment, flip=False)
    return Origin(
        network=network,
        weights=weights.digest,
        images=images,
        spec=spec,
        augment=augment,
        machine=machine,
        cuts=tuple(splits),
        thaws=splits[-1],
    )


@dataclass(frozen=True)
class Material:
    """What a report is made of.

    history: what log.jsonl holds. measured: the images of `part`. logits: theirs, (n, classes).
    features: reads those of the frozen network for training images, (n, d), None where they are
    not cached.
    """

    folder: Path
    result: Result
    history: list[Validation]
    recipe: Recipe
    source: Source
    train: ImageStore
    measured: ImageStore
    logits: NDArray[np.float32]
    features: Batch | None

    @property
    def part(self) -> str:
        """The part that was measured: 'test' or 'validation'."""
        return self.result.headline
