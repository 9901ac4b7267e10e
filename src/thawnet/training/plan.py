"""The plan of a run: its phases adapted to the network and the data, decided once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..data.views import undrawn_views
from ..image.preprocess import Preprocess
from ..model.backbone import Network
from ..model.thawing import AUTO, MIDDLE, UPPER, first_layer
from ..recipe import Phase, Recipe
from .machine import Machine

NAMES = ("head", "fine-tune")  # of the two phases
# A dozen photos are memorised long before 300 steps.
MOST_TIMES = 8
FEW_BATCH = 16
FEW_SHOWN = 6000
FEW_VIEWS = 6
FEW_WARMUP = 0.2
MOST_ENLARGED = 2  # times a side; beyond, images have other statistics than the pretrained ones
# Published fine-tuning of transformers: each block learns at 0.65 to 0.8 times the next one's rate
# (Clark et al. 2020, "ELECTRA"; Bao et al. 2022, "BEiT"; He et al. 2022, "Masked autoencoders are
# scalable vision learners", table 9), and all at a third of a convolutional network's rate.
BLOCK_DECAY = 0.75
TRANSFORMER_RATE = 0.3
TRANSFORMER_WARMUP = 0.1


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a run, with everything about it decided."""

    name: str
    """'head' or 'fine-tune'."""
    phase: Phase
    """The recipe's phase, with batch, rate, epochs and views adapted to the data."""
    images: int
    """Number of training images."""
    layer: str
    """The first layer that trains."""
    split: int
    """The stage that holds it; all stages before it are frozen."""
    solved: bool
    """Whether the phase solves the head to its optimum (regression.py), in one epoch."""
    compiled: bool
    """Whether its training step is compiled."""
    cached_splits: tuple[int, ...]
    """Splits that one pass over the training images caches, this phase's own first."""
    cached_val_splits: tuple[int, ...]
    """The same for the validation images."""

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return steps_per_epoch(self.phase, self.images)

    @property
    def rounds(self) -> int:
        """Number of parts of an epoch, as equal as its steps allow; a validation follows each."""
        every = self.phase.validate_every
        return max(1, min(self.images // every, self.steps)) if every else 1

    def with_batch(self, batch: int) -> PhasePlan:
        """Return the plan with another batch size, see `scaled`."""
        return replace(self, phase=scaled(self.phase, batch))


Plan = list[PhasePlan]  # of both phases


def make_plan(
    recipe: Recipe,
    network: Network,
    machine: Machine,
    images: int,
    batches: Mapping[int, int] = MappingProxyType({}),
    folded: bool = False,
    small: bool = False,
    rates_are_own: bool = False,
) -> Plan:
    """Return the plan of a recipe for a network and a number of training images.

    folded: whether the images are cross-validated (data/splits.py). small: see `is_small`. batches:
    smaller batch sizes of phases whose own did not fit the device's memory. rates_are_own: whether
    the user gave the learning rates. Raises UsageError for a layer that the network does not have.
    """
    layers = layers_of(recipe, network)
    splits = [network.stage_of(layer) for layer in layers]
    only_head = [split == len(network.stages) - 1 for split in splits]
    solved = [
        alone and images <= phase.solve_images
        for alone, phase in zip(only_head, recipe.phases, strict=True)
    ]
    fitted = [
        as_solved(phase, recipe.augment.flip)
        if whole
        else (for_few if folded else for_small if small else adapted)(phase, images)
        for whole, phase in zip(solved, recipe.phases, strict=True)
    ]

    blocks = network.attention_blocks
    if blocks and not rates_are_own:
        fitted = [
            phase if alone else for_transformer(phase, blocks / len(network.stages))
            for alone, phase in zip(only_head, fitted, strict=True)
        ]

    def splits_cached(number: int, views: int) -> tuple[int, ...]:
        """Return the phase's split, then earlier ones that a later phase reads in these views."""
        own, later = splits[number], range(number + 1, len(splits))
        others = (splits[phase] for phase in later if fitted[phase].views >= views)
        return (own, *(split for split in others if 0 < split < own))

    def planned(number: int) -> PhasePlan:
        phase, split = fitted[number], splits[number]
        compiles = machine.compiles(images * phase.epochs, network.size)
        plan = PhasePlan(
            name=NAMES[number],
            phase=phase,
            images=images,
            layer=layers[number],
            split=split,
            solved=solved[number],
            compiled=compiles and not only_head[number] and not folded,
            cached_splits=splits_cached(number, phase.views),
            cached_val_splits=splits_cached(number, 0),
        )
        return plan.with_batch(batches[number]) if number in batches else plan

    return [planned(number) for number in range(len(fitted))]


def is_small(recipe: Recipe, network: Network, spec: Preprocess, images: int, folded: bool) -> bool:
    """Return whether images are a small set of photos, which fine-tunes as few photos do.

    images: the number that train and validate. Small: as many as a head is solved on. Photos: the
    statistics of the pretrained batch-norms hold for images that are hardly enlarged. CIFAR's,
    enlarged fourfold, need batch-norms that train. Measured with convolutional networks:
    docs/experiments.md.
    """
    return (
        not folded
        and not network.attention_blocks
        and images <= recipe.head.solve_images
        and spec.size <= MOST_ENLARGED * spec.side
    )


def with_layer(recipe: Recipe, small: bool) -> Recipe:
    """Return the recipe with the layer that 'auto' stands for on this data."""
    if recipe.finetune.train_from != AUTO:
        return recipe
    return replace(recipe, finetune=replace(recipe.finetune, train_from=MIDDLE if small else UPPER))


def layers_of(recipe: Recipe, network: Network) -> list[str]:
    """Return the first layer that each phase trains."""
    return [first_layer(network, phase.train_from) for phase in recipe.phases]


def steps_per_epoch(phase: Phase, images: int) -> int:
    """Return the optimiser steps of one epoch."""
    if phase.drop_last:
        return max(1, images // phase.batch_size)
    return math.ceil(images / phase.batch_size)


def scaled(phase: Phase, batch: int) -> Phase:
    """Return the phase with another batch size, and a learning rate that has the same effect.

    The rate scales with the square root of the batch size, as Adam needs (Malladi et al. 2022, "On
    the SDEs and scaling rules for adaptive gradient algorithms").
    """
    rate = phase.lr * math.sqrt(batch / phase.batch_size)
    return replace(phase, batch_size=batch, lr=rate)


def as_solved(phase: Phase, flip: bool) -> Phase:
    """Return the phase of a solved head: one epoch, on the views that are not random."""
    return replace(phase, epochs=1, views=undrawn_views(flip))


def for_few(phase: Phase, images: int) -> Phase:
    """Return the phase adapted to few images, starting from a solved head.

    From that optimum few steps are enough (Kumar et al. 2022, "Fine-tuning can distort pretrained
    features and underperform out-of-distribution"): FEW_SHOWN images are shown, in 8 to 20 epochs,
    in batches of FEW_BATCH at the recipe's own rate. A fifth of the steps is warm-up, as Adam's
    first steps are as long as its last, whatever the gradient, and lead away from the optimum. The
    statistics of such small batches would be noise, so batch-norms stay frozen. Measured:
    docs/experiments.md.
    """
    return replace(
        phase,
        batch_size=min(phase.batch_size, images, FEW_BATCH),
        epochs=min(20, max(8, round(FEW_SHOWN / images))),
        views=min(phase.views, FEW_VIEWS) and FEW_VIEWS,
        warmup=max(phase.warmup, FEW_WARMUP),
        batch_norm="frozen",
        patience=0,
    )


def for_small(phase: Phase, images: int) -> Phase:
    """Return the phase adapted to a small set of photos, see `is_small`: as few, for longer.

    Every epoch shows another view, and a phase without improvement ends early.
    """
    if not phase.min_steps:
        return phase
    few = for_few(phase, images)
    views = few.views and min(few.epochs, max(few.views, phase.view_images // images))
    return replace(few, views=views, patience=phase.patience)


def for_transformer(phase: Phase, blocks_per_stage: float) -> Phase:
    """Return the phase adapted to vision transformers, see BLOCK_DECAY.

    A phase with a `layer_decay` of its own, or that does not adapt to the data (`min_steps` 0), is
    returned unchanged.
    """
    if phase.layer_decay != 1.0 or not phase.min_steps:
        return phase
    return replace(
        phase,
        lr=TRANSFORMER_RATE * phase.lr,
        warmup=max(phase.warmup, TRANSFORMER_WARMUP),
        layer_decay=BLOCK_DECAY**blocks_per_stage,
    )


def adapted(phase: Phase, images: int) -> Phase:
    """Return the phase adapted to a number of training images.

    The batch is at most an eighth of the images, but may always be 16, or all images if there are
    fewer. The learning rate follows, see `scaled`. Epochs rise to reach `min_steps`, at most to
    MOST_TIMES as many, or fall to stay within `max_steps`, at least to 1. Cached views rise to
    `view_images` in all; an epoch shows one, so there are never more views than epochs.
    """
    fitted = scaled(phase, min(phase.batch_size, images, max(16, images // 8)))
    steps = steps_per_epoch(fitted, images)
    more = min(MOST_TIMES * phase.epochs, math.ceil(phase.min_steps / steps))
    epochs = max(phase.epochs, more)
    if phase.max_steps:
        epochs = max(1, min(epochs, phase.max_steps // steps))
    views = phase.views
    if views:
        views = min(epochs, max(views, phase.view_images // images))
    return replace(fitted, epochs=epochs, views=views)
