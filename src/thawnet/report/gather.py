"""What a finished run has to show for itself, gathered for its report."""

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
from ..metrics.accuracy import interval, slices
from ..metrics.calibration import bins_of
from ..metrics.confusion import confused_order, confusion_matrix
from ..metrics.per_class import class_scores, confusions
from ..metrics.result import WHOLE, PhaseResult
from ..training.context import Material
from .content import (
    ClassScore,
    Confusion,
    DataAudit,
    Example,
    Pair,
    Picture,
    Reliability,
    Report,
    Rival,
    Suspect,
    Suspects,
)
from .label_errors import margins
from .markup import percent
from .page import render
from .pictures import picture, picture_audit

REPORT = "report.html"
# The author's figure for the reference job, which whoever trains on CIFAR-100 may compare with.
REFERENCE = {"cifar100": 0.7135}
CLOSE = 0.9  # probability; a hit that was given more was no close call
PAIRS = 9  # of confused classes that are shown
OF_A_PAIR = 4  # images
EXAMPLES = 18  # mistakes, and as many hits
SUSPECTS = 24
# A ridge regression on fewer images than classes, or than this, says nothing.
LEAST_FOR_SUSPECTS = 200


def write_report(material: Material, path: Path) -> dict[str, float]:
    """Write the report of a run, and return the seconds that each section took."""
    found = gather(material)
    made = dict(found.made)
    with _timed(made, "page"):
        write_text(path, render(found))
    return made


@contextmanager
def _timed(seconds: dict[str, float], section: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[section] = time.perf_counter() - begun


def gather(material: Material) -> Report:
    """Return everything that a report holds."""
    made: dict[str, float] = {}
    classes, labels = material.source.classes, material.measured.labels
    result, recipe, missing = material.result, material.recipe, list[str]()
    scores = result.scores
    predicted = material.logits.argmax(1)
    with _timed(made, "confusion"):
        matrix = confusion_matrix(labels, predicted, len(classes))
        order = confused_order(matrix)
        confusion = Confusion([classes[each] for each in order], matrix[np.ix_(order, order)])
        rows = _class_rows(labels, predicted, classes)
    with _timed(made, "calibration"):
        reliability = Reliability(
            result.temperature,
            bins_of(material.logits, labels),
            bins_of(material.logits, labels, result.temperature),
            scores.expected_calibration_error,
            result.fitted_on,
        )
    with _timed(made, "examples"):
        model = _model(material, missing)
        sure = _confidence(material)
        pairs = _pairs(material, predicted, sure, model)
        mistakes, hits = _examples(material, predicted, sure, model)
    with _timed(made, "suspects"):
        suspects = _suspects(material, missing)
    with _timed(made, "data"):
        audited = _audited(material, missing)
    low, high = scores.interval_95
    return Report(
        title=f"{result.data.name}, {recipe.backbone}, recipe {recipe.name}",
        part=material.part,
        accuracy=scores.accuracy,
        interval=(low, high),
        images=scores.images,
        top_5=scores.top_5,
        balanced=scores.balanced_accuracy,
        standing=result.standing,
        flattered=material.part == recipe.validate_on == "validation"
        and any(phase.patience for phase in result.phases),
        rivals=_rivals(material),
        facts=_facts(material),
        history=material.history,
        validated_on=recipe.validate_on,
        seconds=_stages(result.seconds),
        classes=rows,
        confusion=confusion,
        pairs=pairs,
        mistakes=mistakes,
        hits=hits,
        reliability=reliability,
        suspects=suspects,
        audit=audited,
        missing=missing,
        made=list(made.items()),
    )


def _stages(seconds: dict[str, float]) -> list[tuple[str, float]]:
    """Return the stages of a run, and what is left of the whole."""
    stages = [(name, spent) for name, spent in seconds.items() if name != WHOLE]
    rest = seconds[WHOLE] - sum(spent for _, spent in stages)
    return [*stages, ("start and rest", rest)] if rest > 0 else stages


def _class_rows(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> list[ClassScore]:
    most: dict[str, tuple[str, int]] = {}
    for each in confusions(labels, predicted, classes):
        most.setdefault(each.true, (each.predicted, each.images))
    called = np.bincount(predicted, minlength=len(classes))
    rows = []
    for score in class_scores(labels, predicted, classes):
        taken_for, count = most.get(score.name, (None, 0))
        precision = score.precision if called[classes.index(score.name)] else None
        rows.append(
            ClassScore(score.name, score.support, score.recall, precision, taken_for, count)
        )
    return rows


def _model(material: Material, missing: list[str]) -> Model | None:
    """Return the network that explains images, None where none does."""
    try:
        model = load(material.folder)
    except BundleError as error:
        missing.append(f"No class-activation maps: {first_line(error)}.")
        return None
    if model.class_weights is None:
        missing.append(
            f"No class-activation maps: {model.backbone}'s classes are not read off a feature map."
        )
        return None
    return model


def _shown(images: ImageStore, rows: Sequence[int], model: Model | None) -> list[Picture]:
    """Return pictures of some images, with the map of the class that each is taken for."""
    if not len(rows):
        return []
    squares = images.batch(np.array(rows, np.int64))
    found = model.predict(squares, 1, explain=True) if model else [None] * len(rows)
    names = images.names
    return [
        picture(names[row], Image.fromarray(square), each.explanation if each else None)
        for row, square, each in zip(rows, squares, found, strict=True)
    ]


def _pairs(
    material: Material,
    predicted: NDArray[np.int64],
    sure: NDArray[np.float32],
    model: Model | None,
) -> list[Pair]:
    """Return the classes that are most often confused; sure: probabilities, (n, classes)."""
    images, classes = material.measured, material.source.classes
    labels = images.labels
    shown = []
    for each in confusions(labels, predicted, classes)[:PAIRS]:
        true, found = classes.index(each.true), classes.index(each.predicted)
        rows = np.flatnonzero((labels == true) & (predicted == found))
        rows = rows[np.argsort(-sure[rows, found], kind="stable")][:OF_A_PAIR]
        shown.append(
            Pair(
                each.true,
                each.predicted,
                each.images,
                int((labels == true).sum()),
                _shown(images, rows.tolist(), model),
            )
        )
    return shown


def _examples(
    material: Material,
    predicted: NDArray[np.int64],
    sure: NDArray[np.float32],
    model: Model | None,
) -> tuple[list[Example], list[Example]]:
    """Return the most confident mistakes, and the least confident hits among the close calls."""
    images, classes = material.measured, material.source.classes
    labels, names = images.labels, images.names
    confidence = sure.max(1)
    wrong = np.flatnonzero(predicted != labels)
    right = np.flatnonzero((predicted == labels) & (confidence < CLOSE))
    chosen = (
        wrong[np.argsort(-confidence[wrong], kind="stable")][:EXAMPLES],
        right[np.argsort(confidence[right], kind="stable")][:EXAMPLES],
    )
    mistakes, hits = (
        [
            Example(
                names[row],
                shown,
                classes[labels[row]],
                classes[predicted[row]],
                float(confidence[row]),
                float(sure[row, labels[row]]),
            )
            for row, shown in zip(rows.tolist(), _shown(images, rows.tolist(), model), strict=True)
        ]
        for rows in chosen
    )
    return mistakes, hits


def _confidence(material: Material) -> NDArray[np.float32]:
    """Return calibrated probabilities, (n, classes)."""
    found = np.empty_like(material.logits)
    for some in slices(len(found)):
        found[some] = softmax(material.logits[some] / material.result.temperature, axis=1)
    return found


def _suspects(material: Material, missing: list[str]) -> Suspects | None:
    train, classes = material.train, material.source.classes
    if len(train) < max(LEAST_FOR_SUSPECTS, 5 * len(classes)):
        missing.append(
            f"No suspected label errors: {len(train):,} training images are too few to tell."
        )
        return None
    if material.features is None:
        missing.append(
            "No suspected label errors: the frozen network's features were not kept "
            "(THAWNET_CACHE_GB)."
        )
        return None
    labels = train.labels
    found, other = margins(material.features, labels, train.ties, len(classes))
    rows = np.argsort(-found, kind="stable")[:SUSPECTS]
    rows = rows[found[rows] > 0]
    names = train.names
    return Suspects(
        len(train),
        [
            Suspect(names[row], shown, classes[labels[row]], classes[other[row]], float(found[row]))
            for row, shown in zip(rows.tolist(), _shown(train, rows.tolist(), None), strict=True)
        ],
    )


def _audited(material: Material, missing: list[str]) -> DataAudit | None:
    if material.part != "test":
        missing.append(
            "What the data holds is not shown: this run read no test part. `thawnet inspect` looks "
            "at all of it."
        )
        return None
    source = material.source.opened_once()
    return picture_audit(audit(source, material.recipe.size, console.progress), source)


def _rivals(material: Material) -> list[Rival]:
    result = material.result
    assert result.baselines is not None
    regression = result.baselines.logistic_regression_on_frozen_features
    majority = result.baselines.majority_class.accuracy
    rivals = [
        Rival("most frequent class", majority, interval(majority, result.scores.images)),
        Rival(
            "logistic regression on frozen features",
            regression.accuracy,
            regression.interval_95,
            f"learnt from {regression.training_images:,} images",
        ),
        _head_alone(material),
    ]
    reference = REFERENCE.get(result.data.name)
    if reference is not None and material.part == "test":
        rivals.append(
            Rival("the reference recipe, as its author reports it", reference, note="on test")
        )
    return rivals


def _head_alone(material: Material) -> Rival:
    """Return the network as phase 1 left it, beside the final one on the images that validated."""
    head, final = (phase.kept.val_accuracy for phase in material.result.phases)
    note = f"on {material.recipe.validate_on} while it trained, where this run had"
    return Rival(
        "end of phase 1: the head alone", head, note=f"{note} {percent(final, 2)}", own=final
    )


def _epochs(phase: PhaseResult) -> str:
    """Return how long a phase ran, and what it kept: '36 of at most 48, epoch 26 kept'."""
    ran, most = phase.epochs_run, phase.epochs
    told = f"{ran} of at most {most}" if ran < most else f"{ran}"
    return f"{told}, epoch {phase.kept.epoch:g} kept" if phase.patience else told


def _facts(material: Material) -> list[tuple[str, str]]:
    result, recipe = material.result, material.recipe
    machine, versions = result.machine, result.versions
    head, finetune = result.phases
    where = machine["gpu"] if machine["device"] == "cuda" else machine["processor"]
    threads = "" if machine["device"] == "cuda" else f", {counted(machine['threads'], 'thread')}"
    return [
        ("Trained", f"{recipe.backbone} at {recipe.size} px, recipe {recipe.name}"),
        ("Epochs of the head", _epochs(head)),
        ("Epochs of fine-tuning", _epochs(finetune)),
        ("Thawed from", finetune.trains_from),
        ("Starting weights", result.weights.origin),
        (
            "Data",
            f"{result.data.name}: {len(material.train):,} training images, "
            f"{len(material.source.classes):,} classes",
        ),
        ("Took", duration(sum(spent for _, spent in _stages(result.seconds)))),
        ("On", f"{where}{threads}, {machine['dtype']}"),
        ("Finished", result.finished),
        ("Versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)),
        ("Command", result.command),
        *(("Not as it began", why) for why in result.different),
    ]
