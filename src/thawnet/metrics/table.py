"""An evaluation as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.columns import aligned
from ..core.text import counted, printable
from .accuracy import quote
from .per_class import ClassScore
from .summary import QUOTED, Evaluation

ALL_CLASSES = 20  # of more classes, only the worst are shown
WORST = 10
PAIRS = 10
UNREADABLE = 10
MORE = "--json lists all"


def table(evaluation: Evaluation) -> Iterator[str]:
    """Yield the lines of an evaluation, the accuracy last."""
    yield printable(_heading(evaluation))
    yield ""
    yield from _classes(evaluation)
    yield ""
    yield from _confusions(evaluation)
    yield ""
    if evaluation.unreadable:
        yield from _unreadable(evaluation)
        yield ""
    yield from _figures(evaluation)
    yield ""
    yield from _accuracies(evaluation)


def _heading(evaluation: Evaluation) -> str:
    part = "all of it" if evaluation.part == "all" else f"its {QUOTED[evaluation.part]} part"
    own, known = len(evaluation.per_class), evaluation.model_classes
    text = (
        f"{evaluation.data}, {part}: {counted(evaluation.images, 'image')} in "
        f"{counted(own, 'class')}, each predicted as one of the model's {known:,}"
    )
    if known > own:
        text += f", {evaluation.taken_for_others:,} of them as a class that has no images here"
    return text


def _classes(evaluation: Evaluation) -> Iterator[str]:
    scores, title = list(evaluation.per_class), "class"
    if len(scores) > ALL_CLASSES:
        scores = sorted(scores, key=lambda score: score.f1)[:WORST]
        title = f"lowest F1, {WORST} of {len(evaluation.per_class):,}; {MORE}"
    mean = evaluation.macro
    yield from aligned(
        [
            (title, "precision", "recall", "F1", "images"),
            *(_class(score) for score in scores),
            ("mean of all classes", *map(_percent, (mean.precision, mean.recall, mean.f1)), ""),
        ],
        numbers=True,
    )
    yield "(precision: of the images predicted as a class, the share that is of it, 0 if there are"
    yield " none; recall: of its images, the share predicted as it; F1: their harmonic mean)"


def _class(score: ClassScore) -> tuple[str, ...]:
    shares = map(_percent, (score.precision, score.recall, score.f1))
    return (score.name, *shares, f"{score.support:,}")


def _confusions(evaluation: Evaluation) -> list[str]:
    pairs = evaluation.confusions
    if not pairs:
        return ["no image was predicted as another class"]
    title = "most often confused"
    if len(pairs) > PAIRS:
        title += f", {PAIRS} of {len(pairs):,} pairs; {MORE}"
    rows = [(pair.true, f"predicted as {pair.predicted}", f"{pair.images:,}") for pair in pairs]
    return [title, *aligned(rows[:PAIRS])]


def _unreadable(evaluation: Evaluation) -> list[str]:
    count = len(evaluation.unreadable)
    title = "cannot be read"
    if count > UNREADABLE:
        title += f", {UNREADABLE} of {count:,}; {MORE}"
    return [
        title,
        *aligned([(lost.image, lost.reason) for lost in evaluation.unreadable[:UNREADABLE]]),
    ]


def _figures(evaluation: Evaluation) -> list[str]:
    shares = {
        "balanced accuracy": evaluation.balanced_accuracy,
        "top-5 accuracy": evaluation.top_5,
        "superclass accuracy": evaluation.superclass_accuracy,
        "expected calibration error": evaluation.expected_calibration_error,
        "unlike the training data": evaluation.unfamiliar,
    }
    return aligned(
        [(name, _percent(share)) for name, share in shares.items() if share is not None],
        numbers=True,
    )


def _accuracies(evaluation: Evaluation) -> Iterator[str]:
    """Yield the accuracy and how many images the model knows; the accuracy to quote is last."""
    count, unseen = evaluation.trained_on, evaluation.unseen
    among = "among those that the model was trained or chosen on"
    if unseen is None:
        yield f"all images are {among}, so this says nothing about new ones"
        yield evaluation.line
    elif count:
        yield evaluation.line
        share = _percent(count / evaluation.images)
        yield f"{count:,} of {evaluation.images:,} images ({share}) are {among}; on the others:"
        yield quote("unseen", unseen.accuracy, unseen.images)
    else:
        yield f"none of the images is {among}"
        yield evaluation.line


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
