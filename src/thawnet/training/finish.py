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
from ..core.memory import return_freed_memory
from ..core.text import resume_command
from ..data.items import Items
from ..data.store import ImageStore
from ..metrics.result import Baselines, headline
from .ancestor import say_learned_before
from .baseline import Labelled, baselines, fit, joined, scored, taken
from .checkpoint import IN_MEMORY, Keeper, timed
from .context import Material, Run
from .few import held_out
from .head import solved_head
from .loop import evaluate
from .outputs import Measured, Parts, write_end, write_network
from .parts import open_images, require_some
from .phase import EVALUATION_BATCH
from .plan import NAMES
from .pretrained import pretrained_features
from .regression import PENALTIES
from .run_folder import Outcome, write_broken
from .trunk.feeds import Batch, Feed, LiveFeed


def finish(run: Run, keeper: Keeper, report: Callable[[Material], None] | None) -> Outcome:
    """Write the network, read the test part once, and write the remaining files.

    report: see run.train. Everything is computed in float32, as in prediction. A failure after the
    last epoch loses no training: the bundle is written first, and `--resume` does the rest.
    """
    world = run.world
    # Training's memory, if kept, would add to that of the last stages.
    return_freed_memory()
    validated_on = run.recipe.validate_on
    parts: Parts = {validated_on: _measure(run, keeper, validated_on, run.val)}
    saved = world.lead(lambda: write_network(run, parts))
    with _network_stays(run):
        if validated_on != "test" and not run.options.no_test and run.lists.test is not None:
            with timed(run.state, "test"):
                images = _test_images(run, run.lists.test())
            parts["test"] = _measure(run, keeper, "test", images)
        measured = parts[headline(parts)]
        if world.leads:
            say_learned_before(run, measured.images.hashes)
        return_freed_memory()
        with timed(run.state, "baseline"):
            to_beat, train = measure_baselines(run, measured)
        return_freed_memory()

        def write() -> Outcome:
            keeper.clock()
            outcome = write_end(run, saved, parts, to_beat)
            if report is not None and not run.options.no_report:
                console.say("writing the report")
                material = Material(
                    folder=run.folder,
                    result=outcome.result,
                    history=run.state.history,
                    recipe=run.recipe,
                    source=run.source,
                    train=run.train,
                    measured=measured.images,
                    logits=measured.logits,
                    features=train.epoch(0) if train.cached else None,
                )
                report(material)
            return outcome

        return world.lead(write)


@contextmanager
def _network_stays(run: Run) -> Iterator[None]:
    """Add to errors after the last epoch where the network is and how to finish the run."""
    try:
        yield
    except ThawnetError as error:
        if isinstance(error, InterruptedRunError) or run.options.data == IN_MEMORY:
            raise
        bundle = run.folder / RUN_BUNDLE
        raise RunError(
            f"{error}; the trained network is saved in '{bundle}'; fix this and finish with "
            + resume_command(run.folder)
            + ("" if run.options.no_test else ", or without the test part: add --no-test")
        ) from error


def _measure(run: Run, keeper: Keeper, part: str, images: ImageStore) -> Measured:
    """Return metrics and logits of a part, reusing the logits of an earlier attempt."""
    with timed(run.state, "test"):
        logits_of = _logits(run, images)
        with console.progress(f"evaluating {part}", len(images)) as advance:
            metrics, logits = evaluate(
                logits_of,
                images.labels,
                EVALUATION_BATCH,
                advance,
                run.world,
                *keeper.logits(part, lambda: None),
            )
    run.state.logits[part] = torch.from_numpy(logits)
    keeper.save()
    return Measured(metrics, logits, images)


def _logits(run: Run, images: ImageStore) -> Batch:
    """Return a function from positions (n,) to the logits of these images, (n, classes)."""
    feed = LiveFeed(run.exact_origin(images), len(run.network.stages), views=2, seed=0)
    plain, mirrored = feed.epoch(0), feed.epoch(1)
    if not run.spec.mirrored:
        return plain
    # The head is linear: the mean of logits is that of features, which the bundle takes.
    return lambda positions: (plain(positions) + mirrored(positions)) / 2


def _test_images(run: Run, items: Items) -> ImageStore:
    """Return the test images; drop earlier logits if images were repaired since a stop."""
    workers = run.options.workers
    images = run.world.in_turn(lambda: open_images("test", items, run.spec.reduction, workers))
    if run.world.leads:
        write_broken(run.folder, [run.train, run.val, images])
    require_some(images, "test")
    if run.state.tested != images.fingerprint:
        run.state.logits.pop("test", None)
        run.state.tested = images.fingerprint
    return images


def measure_baselines(run: Run, measured: Measured) -> tuple[Baselines, Feed]:
    """Return the baselines' accuracies on the measured images, and the training images' features.

    Every rank computes its share of the features; the leader alone fits on them. If phase 1 solved
    its head, that is the regression.
    """
    feed_of = pretrained_features(
        run.recipe, run.source, run.weights, run.spec, run.machine, run.world
    )
    train = feed_of(run.train)
    own = measured.logits.argmax(1) == measured.images.labels
    frequent = int(np.bincount(run.train.labels).argmax())
    solved = solved_head(run)
    if solved is not None and (run.state.kept == NAMES[0] or measured.images is run.val):
        # The regression's answers are known: the network's own, or the head's logits.
        labels, head = measured.images.labels, run.state.head
        assert head is not None
        alone = own
        if run.state.kept != NAMES[0]:
            rows = slice(None) if run.folds is None else np.sort(held_out(run))
            alone = head.logits[rows].argmax(1).numpy() == labels
        right = np.stack([alone, labels == frequent])
        return scored(right, len(run.train), solved.penalty, own), train
    test = feed_of(measured.images)
    chooses = solved is None and run.recipe.validate_on == "validation"
    val = feed_of(run.val) if chooses else None

    def fitted() -> Baselines:
        regression, learned_from = solved, taken(len(run.train))
        if regression is None:
            with console.progress("logistic regression on frozen features", len(PENALTIES)) as step:
                regression = fit(
                    joined(_pieces(run.train, train, learned_from)),
                    None if val is None else joined(_pieces(run.val, val, np.arange(len(run.val)))),
                    len(run.source.classes),
                    step,
                )
        images = len(run.train) if solved is not None else len(learned_from)
        pieces = _pieces(measured.images, test, np.arange(len(measured.images)))
        return baselines(regression, images, frequent, pieces, own)

    return run.world.lead(fitted), train


def _pieces(images: ImageStore, feed: Feed, positions: NDArray[np.int64]) -> Iterator[Labelled]:
    """Yield features and labels of some images, a few at a time."""
    features_of = feed.epoch(0)
    for rows in np.array_split(positions, len(positions) // 256 + 1):
        yield features_of(rows).float().cpu().numpy(), images.labels[rows]
