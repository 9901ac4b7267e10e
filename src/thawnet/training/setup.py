"""Setup of a run: the call resolved, data and weights found, the network built."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import console
from ..core.errors import DataError, UsageError
from ..core.memory import keep_freed_memory
from ..core.text import counted
from ..data.items import Source
from ..data.sources.open import open_source
from ..data.splits import arrange, check_parts, folded
from ..data.store import ImageStore, Typical, typical_image
from ..image.preprocess import CUT
from ..model.backbone import Network
from ..recipe import Recipe, TrainOptions, to_table
from ..trackers.tracker import Start
from ..trackers.trackers import Trackers, parameters
from . import checkpoint, run_folder
from .ancestor import say_known_classes
from .call import check_call, require_same, resolve_call
from .checkpoint import RunState, timed
from .context import Run
from .machine import compile_fault
from .parts import open_parts
from .plan import Plan, is_small, make_plan, with_layer
from .pretrained import build_network, fit_input, learns_in
from .ranks import World


def setup(
    options: TrainOptions, world: World, held: ExitStack, source: Source | None = None
) -> Run:
    """Resolve the call, find data and weights, build store and network, make the run folder.

    held: receives the lock on the run folder; close it when the run ends. source: the data, if it
    is open already.
    """
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # float32 must be float32
    resumed, state = world.lead(lambda: resolve_call(options, world.size))
    options, machine = state.options, state.machine
    torch.set_num_threads(machine.threads)
    # Names in the call are checked before anything is downloaded or decoded.
    world.agree(lambda: check_call(state.recipe, options))
    if source is None:
        source = world.in_turn(
            lambda: open_source(
                options.data, options.data_dir, console.progress, console.say, options.reading
            )
        )
    world.agree(lambda: check_parts(source, not options.no_test))
    if resumed is None:
        state.own_test = "test" in source.parts
    lists = arrange(source, state.recipe.shares, state.own_test)
    if lists.test is None and state.own_test and not options.no_test:
        console.say("the test part is gone: accuracy will be that on the validation images")
    if not options.no_test and lists.test is not None and "test" not in source.parts:
        by_val = lists.folded and "val" in source.parts
        console.say(
            "no test part: the validation part tests, as few training images are cross-validated"
            if by_val
            else f"no test part: {len(lists.test()):,} of {len(lists.train) + len(lists.test()):,} "
            "images are held back to test"
        )
    for part, share in (("test", options.test_share), ("val", options.val_share)):
        if share is not None and (part in source.parts or (lists.folded and "val" in source.parts)):
            raise UsageError(
                f"--{part}-share {share:g}: '{source.name}' has parts of its own, which stay as "
                "they are; leave it out"
            )
    if options.folds is not None and not lists.folded:
        most = state.recipe.shares.few
        found = "has a part of its own" if lists.val is not None else f"has {len(lists.train):,}"
        raise UsageError(
            f"--folds {options.folds}: recipe '{state.recipe.name}' cross-validates up to "
            f"{most:,} training images without a validation part, and '{source.name}' {found}; "
            "leave it out"
        )
    if lists.folded and world.size > 1:
        raise UsageError(
            f"{len(lists.train):,} training images are cross-validated, which one process does; "
            "start it without torchrun, or hold images back with --val-share 0.1"
        )
    typical = typical_image(lists.train)
    recipe, weights, spec = world.in_turn(lambda: fit_input(state.recipe, source, typical))
    if recipe.mirrored and recipe.augment.flip and not lists.folded:
        spec = dataclasses.replace(spec, mirrored=True)
    for line in _seen(typical, recipe):
        console.say(line)
    console.say(
        f"{recipe.name}: {recipe.backbone} at {recipe.size} px from '{recipe.weights}' weights, "
        f"{machine.device}, {machine.dtype}, {counted(machine.threads, 'thread')}"
        + (f", {world.size} processes" if world.size > 1 else "")
    )
    if not weights.tells_pixels:
        console.say(
            f"the weights do not say how pixels were normalised: mean {_list(weights.mean)} and "
            f"std {_list(weights.std)} are assumed, as timm's for {recipe.backbone}"
        )
    network = world.agree(lambda: build_network(recipe, source, weights, machine))
    small = is_small(recipe, network, spec, len(lists.train), lists.folded)
    recipe = with_layer(recipe, small)
    if resumed is None and not world.agree(lambda: learns_in(machine, network, recipe)):
        console.say(f"{recipe.backbone}'s gradients are not finite in {machine.dtype}: float32")
        machine = state.machine = dataclasses.replace(machine, dtype="float32")
    if resumed is None:
        state.recipe, state.data, state.weights = recipe, lists.fingerprint, weights.digest
    state = world.everybody.share(state)
    world.agree(lambda: require_same(state, lists.fingerprint, weights.digest))
    folder = world.lead(lambda: _claim(resumed, source.name, state, held))
    try:
        with checkpoint.resumable(state, folder), timed(state, "data"):
            train, val = world.in_turn(
                lambda: open_parts(recipe, source, lists, spec.reduction, options.workers)
            )
        folds = _folds(state, train) if lists.folded else None
    except DataError:
        if world.leads and resumed is None:
            run_folder.remove_run_folder(folder, options.out)
        raise
    plan = _plan(state, network, len(train), lists.folded, small)
    say_known_classes(recipe.weights, weights, source.classes, plan[0].solved)
    if state.network is not None:
        network.net.load_state_dict(state.network)
    if world.leads:
        run_folder.write_start(folder, state.recipe, train, val)
    console.say(f"run folder: {folder}")
    trackers = _trackers(state, plan, folder, source.name) if world.leads else Trackers()
    held.enter_context(trackers)
    return Run(
        folder=folder,
        world=world,
        source=source,
        lists=lists,
        spec=spec,
        weights=weights,
        network=network,
        train=train,
        val=val,
        folds=folds,
        plan=plan,
        state=state,
        trackers=trackers,
    )


def _trackers(state: RunState, plan: Plan, folder: Path, data: str) -> Trackers:
    """Return the trackers that the call names, told of the run."""
    trackers, history = Trackers(), state.history
    recipe = to_table(state.recipe)
    for name, adapted in zip(("head", "finetune"), plan, strict=False):
        recipe[name] = to_table(adapted.phase) | {"train_from": adapted.layer}
        recipe[name]["solved"] = adapted.solved
    start = Start(
        folder, data, {"data": data, **dict(parameters(recipe))}, len(history), known_as=None
    )
    trackers.start(state.options.tracker, start, history[-1] if history else None)
    return trackers


def _list(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _seen(typical: Typical, recipe: Recipe) -> Iterator[str]:
    """Yield messages about how the images are cropped and read."""
    if recipe.fit == "crop" and typical.long > CUT * typical.short:
        yield (
            f"the long side of images is {typical.long / typical.short:.1f} times the short one, "
            "and only the square in the middle is seen; --fit squash or --fit pad shows all"
        )
    if typical.bits:
        yield f"grey levels in 16 bits are read as {typical.bits} bits, the most that are used"


def _claim(resumed: Path | None, data: str, state: RunState, held: ExitStack) -> Path:
    """Return the run folder, locked by this process, with a checkpoint to resume from."""
    folder = resumed or run_folder.new_run_folder(state.options.out, data, state.recipe.name)
    held.enter_context(run_folder.claimed(folder))
    checkpoint.save(state, folder)
    return folder


def _folds(state: RunState, train: ImageStore) -> NDArray[np.int64]:
    """Return the fold of each training image, (n,).

    There are no more folds than separable images. Raises DataError if --folds sets more.
    """
    ties = train.ties
    most = int(ties.max()) + 1  # copies and groups stay together
    if state.recipe.folds > most:
        if state.options.folds is not None:
            raise DataError(
                f"--folds {state.options.folds}: {counted(len(train), 'training image')} can form "
                f"{most} folds at most; give as many or fewer"
            )
        state.recipe = dataclasses.replace(state.recipe, folds=max(2, most))
    return folded(train.labels, ties, train.hashes, state.recipe.shares)


def _plan(state: RunState, network: Network, images: int, folded: bool, small: bool) -> Plan:
    """Return the plan of a run. Whether phases are compiled is decided once, at its start."""
    chosen = dataclasses.replace(state.machine, compile=state.options.compile)
    own = state.options.lr is not None
    plan = make_plan(state.recipe, network, chosen, images, state.batches, folded, small, own)
    if not state.compiled:
        fault = compile_fault(state.machine.device) if any(p.compiled for p in plan) else None
        if fault is not None:
            console.say(f"not compiled, as {fault}: a step takes about a fifth longer")
        state.compiled = [fault is None and phase.compiled for phase in plan]
    return [
        dataclasses.replace(phase, compiled=compiled)
        for phase, compiled in zip(plan, state.compiled, strict=True)
    ]
