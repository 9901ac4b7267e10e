"""The files of a finished run: bundle, predictions, plot and result."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bundle.card import model_card
from ..bundle.format import (
    RUN_BUNDLE,
    Architecture,
    describe_bundle,
    short_hashes,
    write_bundle,
)
from ..bundle.meaning import Meaning
from ..core.typed import plain
from ..data.sources.open import is_named
from ..data.store import ImageStore
from ..metrics.accuracy import (
    balanced_accuracy,
    calibrated,
    interval,
    more_photos,
    quote,
    standing,
    top_k,
)
from ..metrics.calibration import calibration_error, helpful_temperature
from ..metrics.predictions import PREDICTIONS, write_predictions
from ..metrics.result import (
    PLOT,
    Baselines,
    CalibrationErrors,
    DataFacts,
    LearningPoint,
    OpenedFrom,
    PhaseResult,
    Result,
    Scores,
    StartingWeights,
    headline,
    write_result,
)
from ..recipe import TrainOptions, to_table
from .ancestor import learned_before
from .context import Run
from .familiarity import fit_familiarity
from .gate import Agreement, export
from .loop import Metrics
from .machine import describe, versions
from .parts import content_of
from .run_folder import Outcome, write_held_out

ITSELF = "the result is the head alone, logistic regression on the frozen features"
NOT_BETTER = ": fine-tuning did not improve on it"


class Measured(NamedTuple):
    """Results of the network on one part of the data."""

    metrics: Metrics
    logits: NDArray[np.float32]
    """(n, classes)."""
    images: ImageStore


Parts = dict[str, Measured]  # 'validation', 'test' or both


@dataclass(frozen=True)
class Saved:
    """A network that has been saved in its bundle."""

    meaning: Meaning
    agreement: Agreement | None
    """Agreement of model.onnx with the network; None if there is no model.onnx."""


def write_network(run: Run, parts: Parts) -> Saved:
    """Write the bundle as soon as the last epoch ends, so that no later failure can lose it.

    parts: results on the images that validated.
    """
    network, weights = run.network, run.weights
    meaning = Meaning(run.source.classes, run.spec)
    unfamiliarity = None
    if "validation" in parts:  # nothing is fitted on a test part that validates
        val = parts["validation"]
        meaning = replace(meaning, temperature=helpful_temperature(val.logits, val.images.labels))
        familiarity = fit_familiarity(run, val.logits)
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
        Architecture(
            network.backbone,
            weights.padding,
            weights.epsilon,
            exported.class_weights if exported else None,
        ),
        meaning,
        np.union1d(
            short_hashes(np.concatenate([run.train.hashes, run.val.hashes])), learned_before(run)
        ),
        *_description(run, saved, result),
    )
    return saved


def write_end(run: Run, saved: Saved, parts: Parts, to_beat: Baselines) -> Outcome:
    """Write the remaining files of a run and return its outcome.

    result.json is written last, as it marks the run as finished. saved: see `write_network`.
    to_beat: see baseline.baselines.
    """
    folder, classes, part = run.folder, run.source.classes, headline(parts)
    metrics, logits, images = parts[part]
    if run.folds is not None and "validation" in parts:
        write_held_out(folder, parts["validation"].logits)
    write_predictions(
        folder / PREDICTIONS,
        part,
        images.names,
        images.labels,
        logits,
        classes,
        saved.meaning.temperature,
    )
    title = f"{run.source.name}, {run.network.backbone}, recipe {run.recipe.name}"
    # Imported here, as importing matplotlib would delay the start of a run by half a second.
    from .history_plot import plot_history

    plot_history(folder / PLOT, run.state.history, title, run.validated_on)
    result = _result(run, saved, parts)
    result = replace(
        result,
        baselines=to_beat,
        opened_from=_opened_from(run.options),
        standing=ITSELF + NOT_BETTER * (len(result.phases) > 1)
        if result.is_regression
        else standing(metrics.accuracy, to_beat.logistic_regression_on_frozen_features),
    )
    result = replace(result, lines=_lines(result, len(classes)))
    describe_bundle(folder / RUN_BUNDLE, *_description(run, saved, result))
    write_result(folder, result)
    return Outcome(folder, result, run.source.unlabelled)


def _result(run: Run, saved: Saved, parts: Parts) -> Result:
    """Return the content of result.json, except for what depends on the baselines."""
    state, classes, temperature = run.state, run.source.classes, saved.meaning.temperature
    return Result(
        metrics={name: _scores(part, temperature) for name, part in parts.items()},
        temperature=temperature,
        phases=tuple(_phases(run)),
        seconds={name: round(value, 2) for name, value in state.seconds.items()},
        seed=run.recipe.seed,
        processes=state.ranks,
        compiled=tuple(state.compiled),
        cached=state.cached,
        different=tuple(state.different),
        command=state.command,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git_commit=_git_commit(),
        versions=versions(),
        machine={**describe(), **asdict(run.machine)},
        data=DataFacts(
            name=run.source.name,
            fingerprint=run.lists.fingerprint,
            own_test=state.own_test,
            content={name: content_of(part.images, classes) for name, part in parts.items()},
        ),
        weights=StartingWeights(run.weights.origin, run.weights.digest, len(learned_before(run))),
        kept=state.kept,
        validated_on=run.validated_on,
        folds=0 if run.folds is None else run.recipe.folds,
        learning_curve=tuple(
            LearningPoint(**point) for point in (state.head.curve if state.head else [])
        ),
    )


def _description(run: Run, saved: Saved, result: Result) -> tuple[dict[str, Any], str]:
    """Return the facts that a bundle records about its training, and its model card."""
    weights, recipe = run.weights, to_table(run.recipe)
    facts = {
        "kept": run.state.kept,
        "source": f"{weights.origin}; trained on {run.source.name} by thawnet",
        "license": weights.licence,
        "recipe": recipe,
        "metrics": {name: asdict(scores) for name, scores in result.metrics.items()},
        "data": asdict(result.data),
        "starting_weights": asdict(result.weights),
        "export": saved.agreement and asdict(saved.agreement),
    }
    card = model_card(saved.meaning, run.network.backbone, weights.licence, recipe, result)
    return facts, card


def _lines(result: Result, classes: int) -> tuple[str, ...]:
    """Return the result as lines of text, the accuracy last."""
    scores, baselines = result.scores, result.baselines
    assert baselines is not None
    regression = baselines.logistic_regression_on_frozen_features
    low, high = regression.interval_95
    majority = baselines.majority_class.accuracy
    to_beat = f"the most frequent class {100 * majority:.2f} %"
    if not result.is_regression:
        to_beat = (
            f"logistic regression on the frozen features {100 * regression.accuracy:.2f} % "
            f"({100 * low:.2f}-{100 * high:.2f}), {to_beat}"
        )
    guessing = scores.interval_95[0] <= majority
    return (
        f"for comparison: {to_beat}",
        *(
            ["as far as these images tell, no better than always naming the most frequent class"]
            * guessing
        ),
        result.standing,
        *([more_photos(result.learning_curve)[:-1]] if result.learning_curve else []),
        *([result.crossing] if result.crossed else []),
        f"balanced accuracy {100 * scores.balanced_accuracy:.2f} %"
        + (f", top-5 accuracy {100 * scores.top_5:.2f} %" if classes > 5 else "")
        + ", "
        + calibrated(scores.expected_calibration_error, result.fitted_on),
        quote(result.quoted, scores.accuracy, scores.images),
    )


def _scores(part: Measured, temperature: float) -> Scores:
    metrics, logits, labels = part.metrics, part.logits, part.images.labels
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


def _opened_from(options: TrainOptions) -> OpenedFrom:
    folder = None if options.data_dir is None else str(options.data_dir.resolve())
    is_path = not is_named(options.data) and folder is None
    data = str(Path(options.data).resolve()) if is_path else options.data
    return OpenedFrom(data, folder, plain(options.reading.resolved()))


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
            solved=plan.solved,
            kept=next((row for row in rows if row.kept), rows[-1]),
        )
        before = ended


def _git_commit() -> str | None:
    """Return the commit of the checkout that thawnet runs from, if it runs from one."""
    try:
        command = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],  # noqa: S607 - wherever git is
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return command.stdout.strip()
