"""A run: setup, learn a head on the frozen network, thaw and fine-tune, finish."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import console
from ..bundle.format import RUN_BUNDLE
from ..data.items import Items, Source
from ..data.store import ImageStore
from ..errors import InterruptedRunError, RunError, ThawnetError, first_line, is_stop
from ..recipe import TrainOptions
from ..text import command_line
from . import checkpoint, outcome
from .baseline import Labelled, baselines, joined, taken
from .call import resumed_folder
from .checkpoint import IN_MEMORY, Keeper, timed
from .feeds import Feed, LiveFeed
from .loop import Metrics, evaluate
from .machine import return_freed_memory
from .phase import EVALUATION_BATCH, PhaseJob
from .pretrained import kept, pretrained_features
from .ranks import join, leave, losses_told
from .reporting import REPORT, Material, write_report
from .setup import Run, open_images, require_some, setup
from .turns import own_turn


@own_turn()
def train(options: TrainOptions, source: Source | None = None) -> outcome.Outcome:
    """Do a whole run, or the rest of one, and return what came out.

    source: data that is there already, whatever `options.data` says; this run can not be resumed.
    Under torchrun every process does its share, and the first writes the run folder. Called in
    several threads of a process, it does one run after another.
    Raises ThawnetError (see errors.py) with one sentence for a person; what was done until then
    lies in the run folder.
    """
    started = time.perf_counter()
    world = join()
    if source is not None:
        options = dataclasses.replace(options, data=IN_MEMORY)
    if options.resume is not None:
        before = world.lead(lambda: outcome.finished(resumed_folder(options)))
        if before is not None:
            console.say(f"{before.folder} is finished; nothing is left to do")
            leave(world)
            return before
    with ExitStack() as held:
        with losses_told(world):
            run = setup(options, world, held, source)
        keeper = Keeper(run.state, run.folder if world.leads else None, started)
        try:
            with losses_told(world, run.folder), checkpoint.resumable(run.state, run.folder):
                keeper.save()
                for number in range(run.state.phase, 2):
                    PhaseJob(run, number).do(keeper)
                done = finish(run, keeper)
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"the GPU's memory is full ({first_line(error)}); close what else uses it and "
                f"go on with {command_line('--resume', run.folder)}, or begin again with a "
                "smaller --size"
            ) from error
        except (KeyboardInterrupt, RuntimeError, ImportError) as error:
            if not is_stop(error):
                raise
            raise checkpoint.interrupted(run.state, run.folder) from error
    leave(world)
    return done


# --- finish --------------------------------------------------------------------------------------


def finish(run: Run, keeper: Keeper) -> outcome.Outcome:
    """Write the network, then read the test part once, and write what is left.

    All in the arithmetic that ships, float32. What fails behind the last epoch costs no training:
    the bundle is written first, and `--resume` does what was not done.
    """
    world = run.world
    # What training took is free now; kept, it would add to what the last stages take.
    return_freed_memory()
    held_out = "validation" if run.recipe.validate_on == "validation" else "test"
    parts = {held_out: _measure(run, keeper, held_out, run.val)}
    keeper.save()
    saved = world.lead(lambda: outcome.write_network(run, parts))
    with _network_stays(run):
        if held_out != "test" and not run.options.no_test and run.lists.test is not None:
            with timed(run.state, "test"):
                images = _test_images(run, run.lists.test())
            parts["test"] = _measure(run, keeper, "test", images)
            keeper.save()
        return_freed_memory()
        with timed(run.state, "baseline"):
            feed_of = pretrained_features(
                run.recipe, run.source, run.weights, run.spec, run.machine, world
            )
            train = feed_of(run.train)
            _, logits, images = parts[outcome.headline(parts)]
            own = logits.argmax(1) == images.labels
            to_beat = measure_baselines(run, feed_of, train, images, own)
        return_freed_memory()

        def write() -> outcome.Outcome:
            keeper.clock()
            done = outcome.write_end(run, saved, parts, to_beat)
            if not (run.options.no_report or run.options.data == IN_MEMORY):
                _report(run, done, parts, train)
            return done

        return world.lead(write)


@contextmanager
def _network_stays(run: Run) -> Iterator[None]:
    """Say of what fails behind the last epoch where the network is, and how the run is finished."""
    try:
        yield
    except ThawnetError as error:
        if isinstance(error, InterruptedRunError) or run.options.data == IN_MEMORY:
            raise
        bundle = run.folder / RUN_BUNDLE
        raise RunError(
            f"{error}; the trained network is safe in '{bundle}', put that right and finish with "
            + checkpoint.resume_command(run.folder)
            + ("" if run.options.no_test else ", or without the test part: add --no-test")
        ) from error


def _measure(
    run: Run, keeper: Keeper, part: str, images: ImageStore
) -> tuple[Metrics, NDArray[np.float32], ImageStore]:
    """Return metrics and logits of a part; those that an earlier attempt found are kept."""
    exact = dataclasses.replace(run.machine, dtype="float32")
    origin = dataclasses.replace(run.origin(images), machine=exact)
    with timed(run.state, "test"):
        logits_of = LiveFeed(origin, len(run.network.stages), 1, 0).epoch(0)
        with console.progress(f"reading {part}", len(images)) as advance:
            metrics, logits = evaluate(
                logits_of,
                images.labels,
                EVALUATION_BATCH,
                advance,
                run.world,
                *keeper.logits(part, lambda: None),
            )
    run.state.logits[part] = torch.from_numpy(logits)
    return metrics, logits, images


def _report(
    run: Run,
    done: outcome.Outcome,
    parts: dict[str, tuple[Metrics, NDArray[np.float32], ImageStore]],
    train: Feed,
) -> None:
    """Write the report of a run that is finished, whatever becomes of it."""
    part = outcome.headline(parts)
    _, logits, measured = parts[part]
    material = Material(
        folder=run.folder,
        result=done.result,
        history=run.state.history,
        recipe=run.recipe,
        source=run.source,
        train=run.train,
        part=part,
        measured=measured,
        logits=logits,
        features=kept(train),
    )
    console.say(done.line)  # the report takes a while
    again = ["thawnet", "report", run.folder, "--data", run.options.data]
    again += ["--data-dir", run.options.data_dir] if run.options.data_dir else []
    try:
        write_report(material, run.folder / REPORT)
    except (ThawnetError, OSError, ValueError) as error:
        console.say(
            f"no report ({first_line(error)}); the run is finished all the same: "
            f"{command_line(*again)}"
        )


def _test_images(run: Run, items: Items) -> ImageStore:
    """Return the images of the test part, which may have been mended since a run was stopped."""
    images = run.world.in_turn(lambda: open_images("test", items, run.spec.side, run.options))
    if run.world.leads:
        outcome.write_broken(run.folder, [run.train, run.val, images])
    require_some(images, "test")
    if run.state.tested != images.fingerprint:
        run.state.logits.pop("test", None)
        run.state.tested = images.fingerprint
    return images


def measure_baselines(
    run: Run,
    feed_of: Callable[[ImageStore], Feed],
    train: Feed,
    measured: ImageStore,
    own: NDArray[np.bool_],
) -> dict[str, Any]:
    """Return the baselines' accuracies on some images, from features of the network as it came.

    feed_of, train: see pretrained_features. own: which images the run is right on. Every rank
    computes its share of the features; the leader alone fits on them.
    """

    def pieces(
        images: ImageStore, feed: Feed, positions: NDArray[np.int64] | None = None
    ) -> Iterator[Labelled]:
        batch, labels = feed.epoch(0), images.labels
        wanted = np.arange(len(images)) if positions is None else positions
        for some in np.array_split(wanted, len(wanted) // 256 + 1):
            yield batch(some).float().cpu().numpy(), labels[some]

    held_out = run.val if run.recipe.validate_on == "validation" else None
    test = feed_of(measured)
    chosen_by = feed_of(held_out) if held_out is not None else None

    def fit() -> dict[str, Any]:
        some = joined(pieces(run.train, train, taken(len(run.train))))
        val = None
        if held_out is not None and chosen_by is not None:
            val = pieces(held_out, chosen_by)
        frequent = int(np.bincount(run.train.labels).argmax())
        with console.progress("logistic regression on frozen features", 3) as advance:
            return baselines(some, frequent, val, pieces(measured, test), own, advance)

    return run.world.lead(fit)
