"""A run: everything its phases and its finish need, and the material of its report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.items import Source
from ..data.splits import TrainTest
from ..data.store import ImageStore
from ..image.preprocess import Preprocess
from ..metrics.result import Result, Validation, write_log
from ..model.backbone import Network
from ..model.weights import Weights
from ..recipe import Recipe, TrainOptions
from ..trackers.trackers import Trackers
from .checkpoint import RunState
from .loop import loss_weights
from .machine import Machine
from .plan import Plan, layers_of
from .ranks import World
from .trunk.cache import Origin
from .trunk.feeds import Batch


@dataclass
class Run:
    """Everything a phase needs. `state` is the part that changes and that a checkpoint stores."""

    folder: Path
    world: World
    source: Source
    lists: TrainTest
    spec: Preprocess
    weights: Weights
    network: Network
    train: ImageStore
    val: ImageStore
    """The validation images; the training images themselves if they are cross-validated."""
    folds: NDArray[np.int64] | None
    """The fold of each training image, (n,), if they are cross-validated; else None."""
    plan: Plan
    state: RunState
    trackers: Trackers
    """Without any on ranks that do not lead."""

    @property
    def options(self) -> TrainOptions:
        """The command's options."""
        return self.state.options

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the options applied and its input size set."""
        return self.state.recipe

    @property
    def machine(self) -> Machine:
        """The run-time decisions."""
        return self.state.machine

    @cached_property
    def loss_weights(self) -> torch.Tensor | None:
        """Class weights of the loss, (classes,) on the device, or None."""
        if not self.recipe.balance:
            return None
        weights = loss_weights(self.train.labels, len(self.source.classes))
        return weights.to(self.machine.torch_device)

    @property
    def validated_on(self) -> str:
        """The name of the validation images in the log."""
        return self.recipe.validate_on if self.folds is None else "held-out"

    def record(self, row: Validation) -> None:
        """Add a validation to the history, the log and the trackers."""
        self.state.history.append(row)
        if self.world.leads:
            write_log(self.folder, self.state.history)
        self.trackers.point(row, self.plan[row.phase].layer)

    def origin(self, images: ImageStore) -> Origin:
        """Return what determines the trunk's output for some images."""
        return origin_of(
            self.network,
            self.recipe,
            self.weights,
            self.spec,
            self.machine,
            images,
        )

    def exact_origin(self, images: ImageStore) -> Origin:
        """Return the same in float32, the precision of prediction."""
        exact = dataclasses.replace(self.machine, dtype="float32")
        return dataclasses.replace(self.origin(images), machine=exact)


def origin_of(
    network: Network,
    recipe: Recipe,
    weights: Weights,
    spec: Preprocess,
    machine: Machine,
    images: ImageStore,
) -> Origin:
    """Return what determines the output of a network's frozen layers for some images."""
    splits = [network.stage_of(layer) for layer in layers_of(recipe, network)]
    return Origin(
        network=network,
        weights=weights.digest,
        images=images,
        spec=spec,
        augment=recipe.augment,
        machine=machine,
        cuts=tuple(splits),
        thaws=splits[-1],
    )


@dataclass(frozen=True)
class Material:
    """The material of a report."""

    folder: Path
    result: Result
    history: list[Validation]
    """The rows of log.jsonl."""
    recipe: Recipe
    source: Source
    train: ImageStore
    measured: ImageStore
    """The images of `part`."""
    logits: NDArray[np.float32]
    """Logits of these images, (n, classes)."""
    features: Batch | None
    """Reads the frozen network's features of training images, (n, d); None if not cached."""

    @property
    def part(self) -> str:
        """The part that was measured: 'test' or 'validation'."""
        return self.result.headline
