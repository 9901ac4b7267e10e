"""Setup of a run: the call resolved, data and weights found, the network built."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import torch

from ..core import console
from ..core.errors import DataError
from ..core.files import sweep
from ..core.memory import available_cores
from ..core.text import counted
from ..data.items import Items, Source
from ..data.sources.open import open_source
from ..data.splits import TrainTest, arrange, check_parts, split_off
from ..data.store import ImageStore, open_store, require_every_class, typical_short_side
from ..image.preprocess import Preprocess, store_side
from ..model.backbone import Network, has_fixed_size
from ..model.folding import channels_last
from ..model.weights import (
    Weights,
    fill,
    load_weights,
    published_size,
)
from ..recipe import Recipe, TrainOptions, options_to_dict
from . import checkpoint, run_folder
from .call import Call, check_call, command, require_same, resolve_call
from .checkpoint import RunState, timed
from .context import Run
from .machine import Machine, keep_freed_memory, versions
from .plan import Plan, layers_of, make_plan
from .ranks import World

VALIDATION_LIMIT = 2500

Part = TypeVar("Part", Items, ImageStore)


def setup(
    options: TrainOptions, world: World, held: ExitStack, source: Source | None = None
) -> Run:
    """Resolve the call, find data and weights, build store and network, make the run folder.

    held: is given the claim on the run folder, to be closed when the run ends. source: the data,
    if it need not be found.
    """
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # what is said to be float32 is
    call = world.lead(lambda: resolve_call(options, world.size))
    options, recipe, machine = call.options, call.recipe, call.machine
    torch.set_num_threads(machine.threads)
    # What the call names is checked before anything is downloaded or decoded.
    world.agree(lambda: check_call(recipe, options))
    if source is None:
        source = world.in_turn(
            lambda: open_source(options.data, options.data_dir, console.progress, console.say)
        )
    world.agree(lambda: check_parts(source, not options.no_test))
    own_test = call.state.own_test if call.state else "test" in source.parts
    lists = arrange(source, recipe.split_seed, own_test)
    if lists.test is None and not options.no_test:
        console.say("the test part is gone: accuracy will be that on the validation images")
    recipe, weights, spec = world.in_turn(
        lambda: fit_input(recipe, typical_short_side(lists.train))
    )
    console.say(
        f"{recipe.name}: {recipe.backbone} at {recipe.size} px from '{recipe.weights}' weights, "
        f"{machine.device}, {machine.dtype}, {counted(machine.threads, 'thread')}"
        + (f", {world.size} processes" if world.size > 1 else "")
    )
    network = world.agree(lambda: build_network(recipe, source, weights, machine))
    state = call.state or RunState(
        options=options_to_dict(options),
        recipe=dataclasses.asdict(recipe),
        machine=machine.as_dict(),
        versions=versions(),
        ranks=world.size,
        data=lists.fingerprint,
        weights=weights.digest,
        command=command(),
        own_test=own_test,
    )
    state = world.everybody.share(state)
    world.agree(lambda: require_same(state, lists.fingerprint, weights.digest))
    folder = world.lead(lambda: _claim(call, source.name, recipe.name, state, held))
    try:
        with timed(state, "data"), checkpoint.resumable(state, folder):
            train, val = world.in_turn(
                lambda: open_parts(recipe, options, source, lists, spec.side)
            )
    except KeyboardInterrupt as error:
        raise checkpoint.interrupted(state, folder) from error
    except DataError:
        if world.leads and call.folder is None:
            run_folder.remove_run_folder(folder, options.out)
        raise
    plan = _plan(recipe, network, machine, options.compile, len(train), state)
    if state.network is not None:
        network.net.load_state_dict(state.network)
    if world.leads:
        run_folder.write_start(folder, state, train, val)
    console.say(f"run folder: {folder}")
    return Run(
        folder=folder,
        options=options,
        recipe=recipe,
        machine=machine,
        world=world,
        source=source,
        lists=lists,
        spec=spec,
        weights=weights,
        network=network,
        train=train,
        val=val,
        plan=plan,
        state=state,
    )


def _plan(
    recipe: Recipe, network: Network, machine: Machine, compiling: str, images: int, state: RunState
) -> Plan:
    """Return the plan of a run; whether phases are compiled is decided once, when it begins.

    compiling: what the call asks for.
    """
    asked = dataclasses.replace(machine, compile=compiling)
    plan = make_plan(recipe, network, asked, images, state.batches)
    if not state.compiled:
        wanted = [phase.compiled for phase in plan]
        if any(wanted) and machine.compile == "no":
            console.say("no C++ compiler was found: eager, a step takes about a fifth longer")
        state.compiled = [each and machine.compile != "no" for each in wanted]
    return [
        dataclasses.replace(phase, compiled=compiled)
        for phase, compiled in zip(plan, state.compiled, strict=True)
    ]


def _claim(call: Call, data: str, recipe: str, state: RunState, held: ExitStack) -> Path:
    """Return the run folder, which no other process has now, with a state to resume from."""
    folder = call.folder or run_folder.new_run_folder(call.options.out, data, recipe)
    held.enter_context(checkpoint.claimed(folder))
    sweep(folder)
    sweep(folder / checkpoint.FILE.parent)
    checkpoint.save(state, folder)
    return folder


def fit_input(recipe: Recipe, short_side: int) -> tuple[Recipe, Weights, Preprocess]:
    """Return the recipe with its input size, its weights, and the way of an image.

    short_side: the data's typical one. Raises WeightsError when the weights cannot be had.
    """
    fixed = has_fixed_size(recipe.backbone)

    def chosen(published: int) -> int:
        return recipe.size or natural_size(published, short_side, fixed, recipe.small_size)

    # Keras publishes weights for several sizes: the one that this data asks for is loaded.
    wanted = chosen(published_size(recipe.backbone))
    weights = load_weights(recipe.weights, recipe.backbone, wanted, console.say)
    recipe = dataclasses.replace(recipe, size=chosen(weights.size))
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
    layers_of(recipe, network)  # one that is not there is told before images are decoded
    network.check()
    channels_last(network.to(machine.torch_device))
    return network


def natural_size(
    weights_size: int, short_side: int, fixed: bool, small: int = Recipe.small_size
) -> int:
    """Return the input size for data: the one the weights were trained at, within reason.

    Images are enlarged by a quarter at most: beyond that, time grows and what is seen does not
    (128 px photos were no better at 224 px than at 160, at more than twice the time). Small ones
    by more, up to `small` pixels, which 32 px give and fewer in proportion, as networks from larger
    images see little in fewer pixels: CIFAR's frozen features reach 65 % at 128 px and 58 at 96. At
    least 96 px, below which convolutional networks have next to no positions left to pool. A
    multiple of 32, the networks' largest stride. A `fixed` size is kept.
    """
    if fixed:
        return weights_size
    shown = 32 * round(small * min(short_side, 32) / 32 / 32)
    enlarged = max(32 * round(1.25 * short_side / 32), shown)
    return max(96, min(weights_size, enlarged))


def open_parts(
    recipe: Recipe, options: TrainOptions, source: Source, lists: TrainTest, side: int
) -> tuple[ImageStore, ImageStore]:
    """Return the images that train and those that validate, stored at a short side of `side`.

    Raises DataError when there are too few to validate on, or a class has none to train on.
    """
    for note in source.notes:
        console.say(note)
    images = open_images("train", lists.train, side, options)
    require_every_class(images, lists.train, source.classes)
    part, items = "validation", lists.val
    if recipe.validate_on == "test":
        if lists.test is None:
            raise DataError(
                f"recipe '{recipe.name}' validates on the test part, which is gone; bring it back"
            )
        console.say("validating on the test part, as the reference does; it selects nothing")
        part, items = "test", lists.test()
    other: ImageStore | None = None
    if items is not None:
        other = require_some(open_images(part, items, side, options), part)
    train_images, val = divide(images, other, recipe.split_seed)
    if len(val) == 0:
        raise DataError(
            f"{len(images)} training images are too few to validate on; "
            "a class needs at least 3 images"
        )
    console.say(
        f"{source.name}: {counted(len(source.classes), 'class')}, {len(train_images):,} training "
        f"and {counted(len(val), 'validation image')}, stored at {side} px"
    )
    return train_images, val


def divide(images: Part, other: Part | None, split_seed: int) -> tuple[Part, Part]:
    """Return what trains and what validates: `other`, or a share of the training images."""
    if other is not None:
        return images, other
    rest, part = split_off(images.labels, images.ties, split_seed, VALIDATION_LIMIT)
    return images.subset(rest), images.subset(part)


def require_some(store: ImageStore, part: str) -> ImageStore:
    """Return the images of a part that is measured on. Raises DataError if none could be read."""
    if not len(store):
        name, why = store.broken[0]
        raise DataError(
            f"none of the {len(store.broken):,} {part} images can be read; the first that failed: "
            f"'{name}' ({why}); replace them, or take the {part} part away"
        )
    return store


def open_images(part: str, items: Items, side: int, options: TrainOptions) -> ImageStore:
    """Open the store of one part, building it under a progress bar, and list what is broken."""
    workers = options.workers or available_cores()
    with console.progress(f"decoding {part}", len(items)) as advance:
        store = open_store(items, side, advance, workers, console.say)
    if store.broken:
        console.say(
            f"{len(store.broken):,} of {len(items):,} {part} images cannot be read, left out:"
        )
        for name, reason in store.broken[:5]:
            console.say(f"  {name}: {reason}")
        if len(store.broken) > 5:
            console.say("  ... all are listed in broken.json in the run folder")
    return store
