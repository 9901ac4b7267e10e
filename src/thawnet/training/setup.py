"""Setup of a run: the call resolved, data and weights found, the network built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from .. import console
from ..data.items import Items, Source
from ..data.sources import open_source
from ..data.splits import TrainTest, arrange, split_off
from ..data.store import ImageStore, open_store, typical_short_side
from ..errors import DataError, UsageError
from ..image.preprocess import Preprocess, store_side
from ..model.backbone import Network, channels_last, has_fixed_size
from ..model.weights import (
    BUNDLED,
    BUNDLED_BACKBONE,
    IMAGENET,
    KERAS,
    Weights,
    fill,
    load_weights,
    published_size,
)
from ..recipe import Recipe, TrainOptions, load_recipe, parse_recipe, resolve
from . import checkpoint, outcome
from .checkpoint import RunState, timed
from .features import Origin
from .machine import Machine, choose_device, decide, keep_freed_memory

VALIDATION_LIMIT = 2500

Part = TypeVar("Part", Items, ImageStore)


@dataclass
class Run:
    """Everything a phase needs. `state` is what changes and what a checkpoint holds."""

    folder: Path
    options: TrainOptions
    recipe: Recipe
    machine: Machine
    source: Source
    lists: TrainTest
    spec: Preprocess
    weights: Weights
    network: Network
    train: ImageStore
    val: ImageStore
    state: RunState

    def origin(self, images: ImageStore) -> Origin:
        """Return what decides the trunk's output for some images."""
        augment = self.recipe.augment
        if not self.source.mirror_safe:
            augment = dataclasses.replace(augment, flip=False)
        return Origin(self.network, self.weights.digest, images, self.spec, augment, self.machine)


def setup(options: TrainOptions) -> Run:
    """Resolve the call, find data and weights, build store and network, make the run folder."""
    keep_freed_memory()
    resumed: RunState | None = None
    folder: Path | None = None
    if options.resume is not None:
        folder = (
            checkpoint.newest_unfinished(Path("runs"))
            if not options.resume
            else Path(options.resume)
        )
        resumed = checkpoint.load(folder)
        options = outcome.options_from(resumed.options)
        recipe = parse_recipe(outcome.toml(resumed.recipe), str(folder))
        machine = Machine(**resumed.machine)
        torch.set_num_threads(machine.threads)
    else:
        outcome.require_free(options.out)
        recipe, machine = chosen(options)
    # What the call names is checked before anything is downloaded or decoded.
    check_call(recipe, options)
    source = open_source(options.data, options.data_dir, console.progress, console.say)
    lists = arrange(source, recipe.split_seed)
    recipe, weights, spec = fit_input(recipe, typical_short_side(lists.train))
    console.say(
        f"{recipe.name}: {recipe.backbone} at {recipe.size} px from '{recipe.weights}' weights, "
        f"{machine.device}, {machine.dtype}, {machine.threads} threads"
    )
    network = build_network(recipe, source, weights, machine)
    state = resumed or RunState(
        options=checkpoint.plain(options),
        recipe=dataclasses.asdict(recipe),
        machine=machine.as_dict(),
    )
    with timed(state, "data"):
        train_images, val_images = _images(recipe, options, source, lists, spec.side)
    if folder is None:
        folder = outcome.new_run_folder(options.out, source.name, recipe.name)
    run = Run(
        folder=folder,
        options=options,
        recipe=recipe,
        machine=machine,
        source=source,
        lists=lists,
        spec=spec,
        weights=weights,
        network=network,
        train=train_images,
        val=val_images,
        state=state,
    )
    if state.network is not None:
        network.net.load_state_dict(state.network)
    outcome.write_start(folder, state, train_images, val_images)
    console.say(f"run folder: {folder}")
    return run


def chosen(options: TrainOptions) -> tuple[Recipe, Machine]:
    """Return the recipe under the call's flags, and the run-time decisions of this machine."""
    device = choose_device(options.device)
    name = options.recipe or ("quick" if device == "cpu" else "full")
    recipe = resolve(load_recipe(name), options)
    machine = decide(device, recipe.precision, options.compile)
    if (
        options.weights is None
        and options.data == "digits"
        and recipe.backbone == BUNDLED_BACKBONE
        and recipe.weights in (IMAGENET, KERAS)
    ):
        # The data that comes with the package starts from the weights that come with it.
        recipe = dataclasses.replace(recipe, weights=BUNDLED)
    return recipe, machine


def fit_input(recipe: Recipe, short_side: int) -> tuple[Recipe, Weights, Preprocess]:
    """Return the recipe with its input size, its weights, and the way of an image.

    short_side: the data's typical one. Raises WeightsError when the weights can not be had.
    """
    fixed = has_fixed_size(recipe.backbone)
    # Keras publishes weights for several sizes: the one that this data asks for is loaded.
    wanted = recipe.size or natural_size(published_size(recipe.backbone), short_side, fixed)
    weights = load_weights(recipe.weights, recipe.backbone, wanted, console.say)
    if not recipe.size:
        recipe = dataclasses.replace(recipe, size=natural_size(weights.size, short_side, fixed))
    side = store_side(recipe.size, short_side)
    return recipe, weights, Preprocess(recipe.size, side, weights.mean, weights.std)


def build_network(recipe: Recipe, source: Source, weights: Weights, machine: Machine) -> Network:
    """Return the pretrained network with a fresh head, on the device, as a run starts with it."""
    # The head's initial weights are the only random ones; the seed decides them.
    torch.manual_seed(recipe.seed)
    network = Network(
        recipe.backbone, len(source.classes), recipe.size, weights.padding, weights.epsilon
    )
    fill(network, weights, recipe.weights)
    network.check()
    channels_last(network.to(machine.torch_device))
    return network


def check_call(recipe: Recipe, options: TrainOptions) -> None:
    """Raise UsageError if the backbone or a layer is unknown, or a flag contradicts the recipe."""
    if recipe.validate_on == "test" and options.no_test:
        raise UsageError(
            f"--no-test: recipe '{recipe.name}' validates on the test part; choose another recipe"
        )
    network = Network(recipe.backbone, 2, recipe.size or published_size(recipe.backbone))
    for phase in recipe.phases:
        network.first_layer(phase.train_from)


def natural_size(weights_size: int, short_side: int, fixed: bool) -> int:
    """Return the input size for data: the one the weights were trained at, within reason.

    Images are enlarged by a quarter at most: beyond that, time grows and what is seen does not
    (128 px photos were no better at 224 px than at 160, at more than twice the time). But at least
    96 px, below which convolutional networks have next to no positions left to pool (CIFAR's 32 px
    give 96). A multiple of 32, the networks' largest stride. A `fixed` size is kept.
    """
    if fixed:
        return weights_size
    return max(96, min(weights_size, 32 * round(1.25 * short_side / 32)))


def _images(
    recipe: Recipe, options: TrainOptions, source: Source, lists: TrainTest, side: int
) -> tuple[ImageStore, ImageStore]:
    for note in source.notes:
        console.say(note)
    images = open_images("train", lists.train, source.classes, side, options)
    other: ImageStore | None = None
    if recipe.validate_on == "test":
        console.say("validating on the test part, as the reference does; it selects nothing")
        other = open_images("test", lists.test(), source.classes, side, options)
    elif lists.val is not None:
        other = open_images("validation", lists.val, source.classes, side, options)
    train_images, val = divide(images, other, recipe.split_seed)
    if len(val) == 0:
        raise DataError(
            f"{len(images)} training images are too few to validate on; "
            "a class needs at least 3 images"
        )
    console.say(
        f"{source.name}: {len(source.classes)} classes, {len(train_images):,} training and "
        f"{len(val):,} validation images, stored at {side} px"
    )
    return train_images, val


def divide(images: Part, other: Part | None, split_seed: int) -> tuple[Part, Part]:
    """Return what trains and what validates: `other`, or a share of the training images."""
    if other is not None:
        return images, other
    rest, part = split_off(images.labels, images.ties, split_seed, VALIDATION_LIMIT)
    return images.subset(rest), images.subset(part)


def open_images(
    part: str, items: Items, classes: Sequence[str], side: int, options: TrainOptions
) -> ImageStore:
    """Open the store of one part, building it under a progress bar, and list what is broken."""
    workers = options.workers or torch.get_num_threads()
    with console.progress(f"decoding {part}", len(items)) as advance:
        store = open_store(items, classes, side, advance, workers, console.say)
    if store.broken:
        console.say(
            f"{len(store.broken)} of {len(items):,} {part} images can not be read and are left out:"
        )
        for name, reason in store.broken[:5]:
            console.say(f"  {name}: {reason}")
        if len(store.broken) > 5:
            console.say("  ... all are listed in broken.json in the run folder")
    return store
