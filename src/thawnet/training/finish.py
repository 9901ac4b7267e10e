"""After the last epoch: the bundle, then the test part read once, the baselines and the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from ..bundle.format import RUN_BUNDLE
from ..core import console
from ..core.errors import InterruptedRunError, RunError, ThawnetError
from ..data.items import Items
from ..data.store import ImageStore
from ..metrics.result import Baselines, headline
from . import checkpoint
from .baseline import Labelled, baselines, joined, taken
from .checkpoint import IN_MEMORY, Keeper, timed
from .context import Material, Run
from .loop import Metrics, evaluate
from .machine import return_freed_memory
from .outputs import Parts, write_end, write_network
from .parts import open_images, require_some
from .phase import EVALUATION_BATCH
from .pretrained import cached_reader, pretrained_features
from .run_folder import Outcome, write_broken
from .trunk.feeds import Batch, Feed, LiveFeed


def finish(run: Run, keeper: Keeper, report: Callable[[Material], None] | None) -> Outcome:
    """Write the network, then read the test part once, and write what is left.

    report: see run.train. All in the arithmetic that ships, float32. What fails behind the last
    epoch costs no training: the bundle is written first, and `--resume` does what was not done.
    """
    world = run.world
    # What training took is free now; kept, it would add to what the last stages take.
    return_freed_memory()
    validated_on = run.recipe.validate_on
    parts: Parts = {validated_on: _measure(run, keeper, validated_on, run.val)}
    keeper.save()
    saved = world.lead(lambda: write_network(run, parts))
    with _network_stays(run):
        if validated_on != "test" and not run.options.no_test and run.lists.test is not None:
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
            _, logits, images = parts[headline(parts)]
            own = logits.argmax(1) == images.labels
            to_beat = measure_baselines(run, feed_of, train, images, own)
        return_freed_memory()

        def write() -> Outcome:
            keeper.clock()
            outcome = write_end(run, saved, parts, to_beat)
            if report is not None and not run.options.no_report:
                console.say(outcome.line)  # the report takes a while
                report(_material(run, outcome, parts, cached_reader(train)))
            return outcome

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
    with timed(run.state, "test"):
        logits_of = LiveFeed(run.exact_origin(images), len(run.network.stages), 1, 0).epoch(0)
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


def _material(run: Run, outcome: Outcome, parts: Parts, features: Batch | None) -> Material:
    _, logits, measured = parts[headline(parts)]
    return Material(
        folder=run.folder,
        result=outcome.result,
        history=run.state.history,
        recipe=run.recipe,
        source=run.source,
        train=run.train,
        measured=measured,
        logits=logits,
        features=features,
    )


def _test_images(run: Run, items: Items) -> ImageStore:
    """Return the images of the test part, which may have been mended since a run was stopped."""
    images = run.world.in_turn(lambda: open_images("test", items, run.spec.side, run.options))
    if run.world.leads:
        write_broken(run.folder, [run.train, run.val, images])
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
) -> Baselines:
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

    val_images = run.val if run.recipe.validate_on == "validation" else None
    test = feed_of(measured)
    val_feed = feed_of(val_images) if val_images is not None else None

    def fit() -> Baselines:
        some = joined(pieces(run.train, train, taken(len(run.train))))
        val = None
        if val_images is not None and val_feed is not None:
            val = pieces(val_images, val_feed)
        frequent = int(np.bincount(run.train.labels).argmax())
        with console.progress("logistic regression on frozen features", 3) as advance:
            return baselines(some, frequent, val, pieces(measured, test), own, advance)

    return run.world.lead(fit)
