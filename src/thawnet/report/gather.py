"""Gathering the contents of a finished run's report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

from ..audit.audit import audit
from ..bundle.model import Model, load
from ..core import console
from ..core.errors import BundleError, first_line
from ..core.files import write_text
from ..core.text import counted, duration
from ..data.store import ImageStore
from ..metrics.accuracy import interval, more_photos, slices
from ..metrics.calibration import bins_of
from ..metrics.confusion import confused_order, confusion_matrix, confusions
from ..metrics.result import WHOLE, PhaseResult, Result
from ..training.context import Material
from .content import (
    ClassRow,
    ConfusionMatrix,
    Example,
    More,
    Pair,
    Picture,
    Report,
    Rival,
    Suspect,
)
from .label_errors import margins
from .markup import percent
from .page import render
from .pictures import copies_of, picture

REPORT = "report.html"
# Accuracy that the author of the reference job reports.
REFERENCE = {"cifar100": 0.7135}
CLOSE = 0.9  # probability; hits at or above it are no close calls
PAIRS = 9  # of confused classes shown
OF_A_PAIR = 4  # images shown per pair
EXAMPLES = 18  # mistakes, and as many hits
SUSPECTS = 24
GAINED = 5  # classes whose gain from more photos is listed
# Ridge regression on fewer images than this, or than five per class, says nothing.
LEAST_FOR_SUSPECTS = 200


def write_report(material: Material, path: Path) -> dict[str, float]:
    """Write the report of a run, and return the seconds that each section took."""
    report = gather(material)
    with _timed(report.timings, "page"):
        page = render(report)
    write_text(path, page)
    return report.timings


@contextmanager
def _timed(seconds: dict[str, float], section: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[section] = time.perf_counter() - begun


def gather(material: Material) -> Report:
    """Return the contents of a report."""
    timings: dict[str, float] = {}
    missing: list[str] = []
    classes, labels = material.source.classes, material.measured.labels
    result, recipe = material.result, material.recipe
    predicted = material.logits.argmax(1)
    with _timed(timings, "confusion"):
        matrix = confusion_matrix(labels, predicted, len(classes))
        order = confused_order(matrix)
        confusion = ConfusionMatrix(
            [classes[position] for position in order],
            matrix[np.ix_(order, order)],
            matrix.sum(axis=1)[order],
        )
    with _timed(timings, "calibration"):
        uncalibrated = bins_of(material.logits, labels)
        calibrated = bins_of(material.logits, labels, result.temperature)
    with _timed(timings, "examples"):
        model = _model(material, missing)
        probabilities = _probabilities(material)
        pairs = _pairs(material, predicted, probabilities, model)
        mistakes, hits = _examples(material, predicted, probabilities, model)
    with _timed(timings, "suspects"):
        suspects = _suspects(material, missing)
    with _timed(timings, "data"):
        audited, copies = None, []
        if material.part == "test" or (result.crossed and "test" not in material.source.parts):
            source = material.source.opened_once()
            audited = audit(source, recipe.size, console.progress)
            copies = copies_of(audited, source)
        else:
            missing.append(
                "What the data holds: this run read no test part. `thawnet inspect` looks at all "
                "of it."
            )
    return Report(
        title=f"{result.data.name}, {recipe.backbone}, recipe {recipe.name}",
        result=result,
        history=material.history,
        validated_on=result.validated_on,
        flattered=material.part == recipe.validate_on == "validation"
        and any(phase.patience or phase.solved for phase in result.phases),
        more=_more(result, classes),
        rivals=_rivals(material),
        facts=_facts(material),
        seconds=_stages(result.seconds),
        classes=_class_rows(matrix, classes),
        confusion=confusion,
        pairs=pairs,
        mistakes=mistakes,
        hits=hits,
        uncalibrated=uncalibrated,
        calibrated=calibrated,
        training_images=len(material.train),
        suspects=suspects,
        audit=audited,
        copies=copies,
        missing=missing,
        timings=timings,
    )


def _stages(seconds: dict[str, float]) -> list[tuple[str, float]]:
    """Return the seconds of a run's stages, and the rest of its total."""
    stages = [(name, spent) for name, spent in seconds.items() if name != WHOLE]
    rest = seconds[WHOLE] - sum(spent for _, spent in stages)
    return [*stages, ("start and rest", rest)] if rest > 0 else stages


def _class_rows(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[ClassRow]:
    images, predicted, hits = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    wrong = matrix - np.diag(hits)
    return [
        ClassRow(
            name=classes[position],
            images=int(images[position]),
            recall=float(hits[position] / images[position]),
            precision=float(hits[position] / predicted[position]) if predicted[position] else None,
            confused_with=classes[wrong[position].argmax()],
            confusions=int(wrong[position].max()),
        )
        for position in np.flatnonzero(images).tolist()
    ]


def _model(material: Material, missing: list[str]) -> Model | None:
    """Return the network if it can explain its predictions; else None, noting why in `missing`."""
    try:
        model = load(material.folder)
        if model.class_weights is not None:
            return model
        reason = f"{model.backbone}'s classes are not read off a feature map"
    except BundleError as error:
        reason = first_line(error)
    missing.append(f"Class-activation maps: {reason}.")
    return None


def _pictures(images: ImageStore, rows: NDArray[np.int64], model: Model | None) -> list[Picture]:
    """Return pictures of some images, each with the map of its predicted class."""
    if not len(rows):
        return []
    squares = images.batch(rows)
    maps = (
        [prediction.explanation for prediction in model.predict(squares, 1, explain=True)]
        if model
        else [None] * len(rows)
    )
    names = images.names
    return [
        picture(names[row], Image.fromarray(square), explanation)
        for row, square, explanation in zip(rows.tolist(), squares, maps, strict=True)
    ]


def _probabilities(material: Material) -> NDArray[np.float32]:
    """Return calibrated probabilities, (n, classes)."""
    probabilities = np.empty_like(material.logits)
    for some in slices(len(probabilities)):
        scaled = material.logits[some] / material.result.temperature
        probabilities[some] = softmax(scaled, axis=1)
    return probabilities


def _pairs(
    material: Material,
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    model: Model | None,
) -> list[Pair]:
    """Return the most frequent confusions, each with its most confident images."""
    labels, classes = material.measured.labels, material.source.classes
    pairs = []
    for pair in confusions(labels, predicted, classes)[:PAIRS]:
        true, other = classes.index(pair.true), classes.index(pair.predicted)
        rows = np.flatnonzero((labels == true) & (predicted == other))
        rows = rows[np.argsort(-probabilities[rows, other], kind="stable")][:OF_A_PAIR]
        pictures = _pictures(material.measured, rows, model)
        images = int((labels == true).sum())
        pairs.append(Pair(pair.true, pair.predicted, pair.images, images, pictures))
    return pairs


def _examples(
    material: Material,
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    model: Model | None,
) -> tuple[list[Example], list[Example]]:
    """Return the most confident mistakes, and the least confident hits among the close calls."""
    labels, classes = material.measured.labels, material.source.classes
    confidence = probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    right = np.flatnonzero((predicted == labels) & (confidence < CLOSE))

    def examples(rows: NDArray[np.int64]) -> list[Example]:
        return [
            Example(
                picture,
                classes[labels[row]],
                classes[predicted[row]],
                float(confidence[row]),
                float(probabilities[row, labels[row]]),
            )
            for row, picture in zip(rows, _pictures(material.measured, rows, model), strict=True)
        ]

    return (
        examples(wrong[np.argsort(-confidence[wrong], kind="stable")][:EXAMPLES]),
        examples(right[np.argsort(confidence[right], kind="stable")][:EXAMPLES]),
    )


def _suspects(material: Material, missing: list[str]) -> list[Suspect] | None:
    train, classes = material.train, material.source.classes
    if len(train) < max(LEAST_FOR_SUSPECTS, 5 * len(classes)):
        missing.append(
            f"Suspected label errors: {len(train):,} training images are too few to find any."
        )
        return None
    if material.features is None:
        missing.append(
            "Suspected label errors: the frozen network's features were not kept "
            "(THAWNET_CACHE_GB)."
        )
        return None
    labels = train.labels
    margin, other = margins(material.features, labels, train.ties, len(classes))
    rows = np.argsort(-margin, kind="stable")[:SUSPECTS]
    rows = rows[margin[rows] > 0]
    return [
        Suspect(picture, classes[labels[row]], classes[other[row]], float(margin[row]))
        for row, picture in zip(rows, _pictures(train, rows, None), strict=True)
    ]


def _more(result: Result, classes: Sequence[str]) -> More | None:
    """Return what the learning curve says, None if there is no curve."""
    if not result.learning_curve:
        return None
    half, whole = result.learning_curve[1], result.learning_curve[-1]
    gains = sorted(
        zip(classes, half.recall, whole.recall, strict=True), key=lambda row: row[1] - row[2]
    )
    gained = [row for row in gains[:GAINED] if row[2] > row[1]]
    return More(result.learning_curve, more_photos(result.learning_curve), gained)


def _rivals(material: Material) -> list[Rival]:
    result = material.result
    assert result.baselines is not None
    regression = result.baselines.logistic_regression_on_frozen_features
    majority = result.baselines.majority_class.accuracy
    head, final = result.phases[0].kept.val_accuracy, result.phases[-1].kept.val_accuracy
    if result.kept == "head":
        final = head
    rivals = [Rival("most frequent class", majority, interval(majority, result.scores.images))]
    rivals += (
        []
        if result.is_regression
        else [
            Rival(
                "logistic regression on frozen features",
                regression.accuracy,
                regression.interval_95,
                f"learned from {regression.training_images:,} images",
            ),
        ]
    )
    if len(result.phases) > 1 and not result.is_regression:
        rivals.append(  # both on the images used for validation
            Rival(
                "end of phase 1: the head alone",
                head,
                note=f"on {result.validated_on} images while it trained, where this run had "
                f"{percent(final, 2)}",
                own=final,
            )
        )
    reference = REFERENCE.get(result.data.name)
    if reference is not None and material.part == "test":
        rivals.append(
            Rival("the reference recipe, as its author reports it", reference, note="on test")
        )
    return rivals


def _epochs(phase: PhaseResult) -> str:
    """Describe how long a phase ran and what it kept: '36 of at most 48, epoch 26 kept'."""
    if phase.solved:
        return "none: solved to its optimum"
    ran, most = phase.epochs_run, phase.epochs
    epochs = f"{ran} of at most {most}" if ran < most else f"{ran}"
    if not phase.kept.kept:
        return f"{epochs}, none kept"
    return f"{epochs}, epoch {phase.kept.epoch:g} kept" if phase.patience else epochs


def _facts(material: Material) -> list[tuple[str, str]]:
    result, recipe = material.result, material.recipe
    machine, versions = result.machine, result.versions
    head, *tuned = result.phases
    where = machine["gpu"] if machine["device"] == "cuda" else machine["processor"]
    threads = "" if machine["device"] == "cuda" else f", {counted(machine['threads'], 'thread')}"
    return [
        ("Trained", f"{recipe.backbone} at {recipe.size} px, recipe {recipe.name}"),
        ("Epochs of the head", _epochs(head)),
        *(("Epochs of fine-tuning", _epochs(phase)) for phase in tuned),
        *(
            [("Network kept", "the head alone: fine-tuning was not better")]
            if result.kept == "head" and tuned
            else []
        ),
        *(("Thawed from", phase.trains_from) for phase in tuned),
        ("Starting weights", result.weights.origin),
        (
            "Data",
            f"{result.data.name}: {len(material.train):,} training images, "
            f"{len(material.source.classes):,} classes",
        ),
        ("Duration", duration(sum(spent for _, spent in _stages(result.seconds)))),
        ("Hardware", f"{where}{threads}, {machine['dtype']}"),
        ("Finished", result.finished),
        ("Versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)),
        ("Command", result.command),
        *(("Resumed differently", why) for why in result.different),
    ]
