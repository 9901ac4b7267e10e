"""After the last epoch: the bundle, then the test part read once, the baselines and the result."""

from __future__ import annotations

import dataclasses
import datetime
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..bundle.card import model_card
from ..bundle.format import RUN_BUNDLE, describe_bundle, short_hashes, write_bundle
from ..bundle.spec import Meaning
from ..core import console
from ..core.errors import InterruptedRunError, RunError, ThawnetError
from ..core.files import fingerprint
from ..data.items import Items
from ..data.sources.open import NAMED
from ..data.store import ImageStore
from ..metrics.accuracy import balanced_accuracy, calibrated, interval, quote, standing, top_k
from ..metrics.calibration import calibration_error, fit_temperature
from ..metrics.predictions import PREDICTIONS, write_predictions
from ..metrics.result import (
    Baselines,
    CalibrationErrors,
    DataFacts,
    OpenedFrom,
    PhaseResult,
    Result,
    Scores,
    StartingWeights,
    write_result,
)
from ..recipe import TrainOptions
from . import checkpoint
from .baseline import Labelled, baselines, joined, taken
from .checkpoint import IN_MEMORY, Keeper, timed
from .context import Material, Run
from .familiarity import fit_familiarity
from .gate import Agreement, export
from .loop import Metrics, evaluate
from .machine import describe, return_freed_memory, versions
from .phase import EVALUATION_BATCH
from .pretrained import kept, pretrained_features
from .run_folder import Outcome, write_broken
from .setup import open_images, require_some
from .trunk.feeds import Batch, Feed, LiveFeed

# Metrics, logits (n, classes) and images of each part that was measured.
Parts = dict[str, tuple[Metrics, NDArray[np.float32], ImageStore]]


def finish(run: Run, keeper: Keeper, report: Callable[[Material], None] | None) -> Outcome:
    """Write the network, then read the test part once, and write what is left.

    report: see run.train. All in the arithmetic that ships, float32. What fails behind the last
    epoch costs no training: the bundle is written first, and `--resume` does what was not done.
    """
    world = run.world
    # What training took is free now; kept, it would add to what the last stages take.
    return_freed_memory()
    held_out = "validation" if run.recipe.validate_on == "validation" else "test"
    parts = {held_out: _measure(run, keeper, held_out, run.val)}
    keeper.save()
    saved = world.lead(lambda: write_network(run, parts))
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
            _, logits, images = parts[headline(parts)]
            own = logits.argmax(1) == images.labels
            to_beat = measure_baselines(run, feed_of, train, images, own)
        return_freed_memory()

        def write() -> Outcome:
            keeper.clock()
            outcome = write_end(run, saved, parts, to_beat)
            if report is not None and not run.options.no_report:
                console.say(outcome.line)  # the report takes a while
                report(_material(run, outcome, parts, kept(train)))
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


def _material(run: Run, outcome: Outcome, parts: Parts, features: Batch | None) -> Material:
    part = headline(parts)
    _, logits, measured = parts[part]
    return Material(
        folder=run.folder,
        result=outcome.result,
        history=run.state.history,
        recipe=run.recipe,
        source=run.source,
        train=run.train,
        part=part,
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

    held_out = run.val if run.recipe.validate_on == "validation" else None
    test = feed_of(measured)
    chosen_by = feed_of(held_out) if held_out is not None else None

    def fit() -> Baselines:
        some = joined(pieces(run.train, train, taken(len(run.train))))
        val = None
        if held_out is not None and chosen_by is not None:
            val = pieces(held_out, chosen_by)
        frequent = int(np.bincount(run.train.labels).argmax())
        with console.progress("logistic regression on frozen features", 3) as advance:
            return baselines(some, frequent, val, pieces(measured, test), own, advance)

    return run.world.lead(fit)


@dataclass(frozen=True)
class Saved:
    """A network that lies in its bundle.

    agreement: of its model.onnx with it, None where it has none.
    """

    meaning: Meaning
    agreement: Agreement | None


def write_network(run: Run, parts: Parts) -> Saved:
    """Write the bundle as soon as the last epoch ends, so that nothing that fails later costs it.

    parts: what validated, measured.
    """
    network, weights, recipe = run.network, run.weights, run.state.recipe
    meaning = Meaning(run.source.classes, run.spec)
    unfamiliarity = None
    if "validation" in parts:  # where a run validates on the test part, nothing is fitted on it
        _, held_out, val = parts["validation"]
        meaning = replace(meaning, temperature=fit_temperature(held_out, val.labels))
        familiarity = fit_familiarity(run, held_out)
        if familiarity is not None:
            unfamiliarity, unfamiliar = familiarity
            meaning = replace(meaning, unfamiliar=unfamiliar)
    exported = export(run, meaning, unfamiliarity)
    saved = Saved(meaning, exported.agreement if exported else None)
    result = _result(run, saved, parts)
    write_bundle(
        run.folder / RUN_BUNDLE,
        {
            name: value.detach().cpu().contiguous()
            for name, value in network.net.state_dict().items()
        },
        exported.onnx if exported else None,
        {
            "backbone": network.backbone,
            "padding": weights.padding,
            "epsilon": weights.epsilon,
            "class_weights": exported and exported.class_weights,
        },
        meaning,
        short_hashes(np.concatenate([run.train.hashes, run.val.hashes])),
        _facts(run, saved, result),
        model_card(meaning, network.backbone, weights.licence, recipe, result),
    )
    return saved


def write_end(run: Run, saved: Saved, parts: Parts, to_beat: Baselines) -> Outcome:
    """Write all that a finished run leaves, result.json last, which marks it so, and sum it up.

    saved: see `write_network`. to_beat: see baseline.baselines.
    """
    folder, state, classes, meaning = run.folder, run.state, run.source.classes, saved.meaning
    part = headline(parts)
    metrics, logits, images = parts[part]
    write_predictions(
        folder / PREDICTIONS,
        part,
        images.names,
        images.labels,
        logits,
        classes,
        meaning.temperature,
    )
    title = f"{run.source.name}, {run.network.backbone}, recipe {state.recipe['name']}"
    # Imported here: matplotlib takes half a second, for which no run need wait at its start.
    from .history_plot import plot_history

    plot_history(folder / "history.png", state.history, title, state.recipe["validate_on"])
    result = _result(run, saved, parts)
    result = replace(
        result,
        baselines=to_beat,
        opened_from=_opened_from(run.options),
        standing=standing(metrics.accuracy, to_beat.logistic_regression_on_frozen_features),
    )
    line = quote(part, metrics.accuracy, metrics.images)
    result = replace(result, lines=(*_comparison(result, len(classes)), line))
    describe_bundle(
        folder / RUN_BUNDLE,
        _facts(run, saved, result),
        model_card(meaning, run.network.backbone, run.weights.licence, state.recipe, result),
    )
    write_result(folder, result)
    return Outcome(folder, result)


def _result(run: Run, saved: Saved, parts: Parts) -> Result:
    """Return what result.json says, but for what comes after the baselines."""
    state, classes, temperature = run.state, run.source.classes, saved.meaning.temperature
    return Result(
        metrics={name: _scores(*values, temperature) for name, values in parts.items()},
        temperature=temperature,
        phases=tuple(_phases(run)),
        seconds={name: round(value, 2) for name, value in state.seconds.items()},
        seed=state.recipe["seed"],
        processes=state.ranks,
        compiled=tuple(state.compiled),
        cached=state.cached,
        different=tuple(state.different),
        command=state.command,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git_commit=_git_commit(),
        versions=versions(),
        machine={**describe(), **run.machine.as_dict()},
        data=DataFacts(
            name=run.source.name,
            fingerprint=run.lists.fingerprint,
            own_test=state.own_test,
            content={name: content_of(images, classes) for name, (_, _, images) in parts.items()},
        ),
        weights=StartingWeights(run.weights.origin, run.weights.digest),
    )


def _facts(run: Run, saved: Saved, result: Result) -> dict[str, Any]:
    """Return what a bundle says of its making. result: see `_result`."""
    weights = run.weights
    return {
        "source": f"{weights.origin}; trained on {run.source.name} by thawnet",
        "license": weights.licence,
        "recipe": run.state.recipe,
        "metrics": {name: asdict(scores) for name, scores in result.metrics.items()},
        "data": asdict(result.data),
        "starting_weights": asdict(result.weights),
        "export": saved.agreement and asdict(saved.agreement),
    }


def _comparison(result: Result, classes: int) -> list[str]:
    scores, baselines = result.scores, result.baselines
    assert baselines is not None
    regression = baselines.logistic_regression_on_frozen_features
    low, high = regression.interval_95
    return [
        f"to beat: logistic regression on the frozen features {100 * regression.accuracy:.2f} % "
        f"({100 * low:.2f}-{100 * high:.2f}), "
        f"the most frequent class {100 * baselines.majority_class.accuracy:.2f} %",
        result.standing,
        f"balanced accuracy {100 * scores.balanced_accuracy:.2f} %"
        + (f", top-5 accuracy {100 * scores.top_5:.2f} %" if classes > 5 else "")
        + ", "
        + calibrated(scores.expected_calibration_error, result.fitted_on),
    ]


def content_of(images: ImageStore, classes: Sequence[str]) -> str:
    """Name the images meant and their classes, in whatever order they lie.

    Two runs with the same name here were measured on the same images.
    """
    names = [classes[label] for label in images.labels]
    hashes = [value.tobytes().hex() for value in images.hashes]
    return fingerprint(sorted(zip(hashes, names, strict=True)))


def _scores(
    metrics: Metrics, logits: NDArray[np.float32], images: ImageStore, temperature: float
) -> Scores:
    labels = images.labels
    return Scores(
        accuracy=metrics.accuracy,
        interval_95=interval(metrics.accuracy, metrics.images),
        top_5=top_k(logits, labels, 5),
        balanced_accuracy=balanced_accuracy(logits, labels),
        expected_calibration_error=CalibrationErrors(
            calibration_error(logits, labels), calibration_error(logits, labels, temperature)
        ),
        loss=metrics.loss,
        images=metrics.images,
    )


def headline(parts: Parts) -> str:
    """Return the part whose accuracy a run is quoted with: the test part, where it was read."""
    return "test" if "test" in parts else "validation"


def _opened_from(options: TrainOptions) -> OpenedFrom:
    folder = None if options.data_dir is None else str(options.data_dir.resolve())
    path = Path(options.data)
    there = options.data not in NAMED and folder is None
    return OpenedFrom(str(path.resolve()) if there else options.data, folder)


def _phases(run: Run) -> Iterator[PhaseResult]:
    before = 0.0
    for number, plan in enumerate(run.plan):
        phase = plan.phase
        rows = [row for row in run.state.history if row.phase == number]
        ended = rows[-1].epoch
        yield PhaseResult(
            name=plan.name,
            trains_from=plan.layer,
            batch_size=phase.batch_size,
            lr=phase.lr,
            patience=phase.patience,
            epochs=phase.epochs,
            epochs_run=round(ended - before),
            kept=next(row for row in rows if row.kept),
        )
        before = ended


def _git_commit() -> str | None:
    """Return the commit of the checkout that thawnet runs from, if it runs from one."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],  # noqa: S607 - wherever git is
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
