"""A run: setup, learn a head on the frozen network, thaw and fine-tune, finish."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .. import console
from ..data.store import ImageStore
from ..errors import InterruptedRunError
from ..model.backbone import Network, frozen_function
from ..recipe import Recipe, TrainOptions
from . import checkpoint, outcome
from .baseline import Labelled, baselines
from .checkpoint import RunState, timed
from .features import CachedFeed, Feed, LiveFeed, cached_features
from .loop import Metrics, batches, class_weights, evaluate, train_epoch
from .plan import fit
from .setup import Run, build_network, open_images, setup
from .tail import Tail, compiles

PHASE_NAMES = ("head", "fine-tune")
EVALUATION_BATCH = 250
LINES = 20  # of epochs that a phase prints, about


def train(options: TrainOptions) -> outcome.Outcome:
    """Do a whole run, or the rest of one, and return what came out.

    Raises ThawnetError (see errors.py) with one sentence for a person; what was done until then
    lies in the run folder.
    """
    started = time.perf_counter()
    run = setup(options)
    try:
        for number in range(run.state.phase, 2):
            do_phase(run, number)
        return finish(run, started)
    except (KeyboardInterrupt, RuntimeError) as error:
        if not _stopped(error):
            raise
        raise _interrupted(run) from error


def _stopped(error: BaseException) -> bool:
    """Whether a stop is behind an error: C++ that was calling Python turns it into its own."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__context__
    return behind is not None


def _interrupted(run: Run) -> InterruptedRunError:
    if not run.state.history:
        return InterruptedRunError("stopped before the first epoch was done; start again")
    return InterruptedRunError(
        f"stopped; {len(run.state.history)} epochs are kept: thawnet train --resume {run.folder}"
    )


# --- a phase -------------------------------------------------------------------------------------


def do_phase(run: Run, number: int) -> None:
    """Thaw what the phase trains and train it, from the state's epoch on."""
    state, network, machine = run.state, run.network, run.machine
    phase = fit(run.recipe.phases[number], len(run.train))
    tail = Tail(network, phase, machine)
    split, parameters, optimizer = tail.split, tail.parameters, tail.optimizer
    averaged, ema, epochs = tail.averaged, tail.ema, phase.epochs
    if state.epoch:
        assert state.optimizer is not None
        optimizer.load_state_dict(state.optimizer)
        if state.averaged is not None:
            averaged.net.load_state_dict(state.averaged)
    part: Callable[[torch.Tensor], torch.Tensor] = tail.part
    compiled = compiles(network, phase, machine, len(run.train))
    if compiled:
        # It warns of a missing CUDA runtime, of which the first line of the run has told already.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        part = torch.compile(part, dynamic=False)
    count = sum(value.numel() for value in parameters)
    console.say(
        f"phase {number + 1}, {PHASE_NAMES[number]}: {count:,} parameters train from "
        f"{network.first_layer(phase.train_from)}, {epochs} epochs, batch {phase.batch_size}, "
        f"{'compiled' if compiled else 'eager'}"
    )
    with timed(state, "features"):
        feed = make_feed(run, run.train, number, split, phase.views)
        val_feed = make_feed(run, run.val, number, split, 1)
    labels = torch.from_numpy(run.train.labels).to(machine.torch_device)
    weights = None
    if run.recipe.balance:
        weights = class_weights(run.train.labels, len(run.source.classes)).to(machine.torch_device)
    done = sum(row["phase"] == 0 for row in state.history) if number else 0
    network.training_mode(phase.batch_norm, phase.bn_momentum)
    for epoch in range(state.epoch, epochs):
        start = time.perf_counter()
        total = done + epoch
        order = batches(len(run.train), phase, [run.recipe.seed, total, 0x0BDE])
        with console.progress(f"epoch {total + 1}", sum(map(len, order))) as advance:
            trained = train_epoch(
                tail=part,
                parameters=parameters,
                optimizer=optimizer,
                ema=ema,
                batch=feed.epoch(total),
                labels=labels,
                class_weights=weights,
                order=order,
                phase=phase,
                first_step=epoch * len(order),
                steps=epochs * len(order),
                seed=run.recipe.seed,
                machine=machine,
                progress=advance,
            )
        spent = time.perf_counter() - start
        kept = averaged if ema else network
        frozen = frozen_function(kept, split, None, machine.trunk_dtype, machine.torch_device)
        with console.progress("validating", len(run.val)) as advance:
            held_out, _ = evaluate(
                frozen, val_feed.epoch(0), run.val.labels, EVALUATION_BATCH, advance
            )
        stop = phase.patience and _note_best(state, epoch, held_out, kept) >= phase.patience
        last = stop or epoch + 1 == epochs
        if last:
            network.net.load_state_dict(
                state.best["network"] if state.best else kept.net.state_dict()
            )
        state.seconds[PHASE_NAMES[number]] = (
            state.seconds.get(PHASE_NAMES[number], 0.0) + time.perf_counter() - start
        )
        _record(run, number, total, trained, held_out, spent, 0 if last else epochs - epoch - 1)
        if last:
            kept_epoch = done + (state.best["epoch"] if state.best else epoch)
            state.history[kept_epoch]["kept"] = True
            outcome.write_log(run.folder, state.history)
            if kept_epoch != total:
                console.say(
                    f"kept epoch {kept_epoch + 1}, the best on validation"
                    + (f"; {phase.patience} epochs without a better one" if stop else "")
                )
        state.phase, state.epoch = (number + 1, 0) if last else (number, epoch + 1)
        state.network = network.net.state_dict()
        state.averaged = averaged.net.state_dict() if ema and not last else None
        state.optimizer = None if last else optimizer.state_dict()
        if last:
            state.best = None
        checkpoint.save(state, run.folder)
        if last:
            return


def _note_best(state: RunState, epoch: int, held_out: Metrics, kept: Network) -> int:
    """Keep the best epoch so far, by accuracy, then loss; return how many epochs ago it was."""
    best = state.best
    if best is None or (held_out.accuracy, -held_out.loss) > (best["accuracy"], -best["loss"]):
        tensors = {name: value.clone() for name, value in kept.net.state_dict().items()}
        state.best = {
            "accuracy": held_out.accuracy,
            "loss": held_out.loss,
            "epoch": epoch,
            "network": tensors,
        }
        return 0
    return epoch - int(best["epoch"])


def make_feed(run: Run, images: ImageStore, number: int, split: int, views: int) -> Feed:
    """Return cached activations where the phase has fixed views and a trunk, else live ones."""
    origin = run.origin(images)
    seed = run.recipe.seed
    if views == 0 or split == 0:
        return LiveFeed(origin, split, views, seed)
    splits = splits_of(run.recipe, run.network, number, views, len(images), images is run.val)
    stores = []
    started = time.perf_counter()
    with console.progress("caching features", len(images) * views) as advance:
        for view in range(views):
            found = cached_features(origin, view, splits, advance)
            if found is None:
                console.say(
                    "features do not fit the disk budget (THAWNET_CACHE_GB): recomputed as needed"
                )
                return LiveFeed(origin, split, views, seed)
            stores.append(found[0])
    spent = time.perf_counter() - started
    if spent > 5:
        console.say(f"cached features: {len(images):,} images, {views} views, {spent:.0f} s")
    return CachedFeed(stores, len(images), seed, run.machine.torch_device)


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


def _record(
    run: Run, number: int, total: int, trained: Metrics, held_out: Metrics, spent: float, left: int
) -> None:
    row = {
        "epoch": total + 1,
        "phase": number,
        "train_loss": round(trained.loss, 5),
        "train_accuracy": round(trained.accuracy, 5),
        "val_loss": round(held_out.loss, 5),
        "val_accuracy": round(held_out.accuracy, 5),
        "seconds": round(spent, 2),
        "images_per_second": round(trained.images / spent, 1),
    }
    run.state.history.append(row)
    outcome.write_log(run.folder, run.state.history)
    shown = max(1, round((total + left) / LINES))
    if left and (total + 1) % shown:
        return  # log.jsonl has every epoch; a person wants a page of them
    remaining = f", {left * spent / 60:.1f} min left in this phase" if left * spent > 60 else ""
    console.say(
        f"epoch {total + 1:3d} {PHASE_NAMES[number]:9s} train {100 * trained.accuracy:6.2f} % "
        f"loss {trained.loss:.3f}   {run.recipe.validate_on} {100 * held_out.accuracy:6.2f} % "
        f"loss {held_out.loss:.3f}   {row['images_per_second']:,.0f} images/s{remaining}"
    )


# --- finish --------------------------------------------------------------------------------------


def finish(run: Run, started: float) -> outcome.Outcome:
    """Read the test part once, in the arithmetic that ships (float32), and write what is left."""
    state, spec = run.state, run.spec
    # float32 whatever the run computed in: this is what the bundle holds.
    exact = dataclasses.replace(run.machine, dtype="float32")
    part = frozen_function(run.network, 0, None, torch.float32, run.machine.torch_device)
    parts: dict[str, tuple[Metrics, np.ndarray, ImageStore]] = {}
    with timed(state, "test"):
        stores = {"validation": run.val} if run.recipe.validate_on == "validation" else {}
        if not run.options.no_test:
            test = (
                run.val
                if not stores
                else open_images(
                    "test", run.lists.test(), run.source.classes, spec.side, run.options
                )
            )
            stores["test"] = test
        for name, images in stores.items():
            origin = dataclasses.replace(run.origin(images), machine=exact)
            feed = LiveFeed(origin, 0, 1, 0).epoch(0)
            with console.progress(f"reading {name}", len(images)) as advance:
                metrics, logits = evaluate(part, feed, images.labels, EVALUATION_BATCH, advance)
            parts[name] = (metrics, logits, images)
    outcome.write_broken(run.folder, [run.train, *stores.values()])
    with timed(state, "baseline"):
        to_beat = measure_baselines(run, stores.get("test", run.val))
    return outcome.write_end(
        folder=run.folder,
        state=state,
        parts=parts,
        to_beat=to_beat,
        network=run.network,
        weights=run.weights,
        classes=run.source.classes,
        spec=spec,
        data={"name": run.source.name, "fingerprint": run.lists.fingerprint},
        machine=run.machine,
        wall=time.perf_counter() - started,
    )


def measure_baselines(run: Run, measured: ImageStore) -> dict[str, Any]:
    """Return the baselines' accuracies on some images, from features of the network as it came."""
    frozen = build_network(run.recipe, run.source, run.weights, run.machine)

    def features(images: ImageStore) -> Labelled:
        origin = dataclasses.replace(run.origin(images), network=frozen)
        split = len(frozen.stages) - 1
        with console.progress("features for the baseline", len(images)) as advance:
            found = cached_features(origin, 0, [split], advance)
        feed: Feed = LiveFeed(origin, split, 1, 0)
        if found is not None:
            feed = CachedFeed(found, len(images), 0, run.machine.torch_device)
        batch = feed.epoch(0)
        rows = [
            batch(positions).float().cpu().numpy()
            for positions in np.array_split(np.arange(len(images)), len(images) // 256 + 1)
        ]
        return np.concatenate(rows), images.labels

    val = features(run.val) if run.recipe.validate_on == "validation" else None
    with console.progress("logistic regression on frozen features", 3) as advance:
        return baselines(features(run.train), val, features(measured), advance)
