"""The metrics of a network on labelled images, from its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .accuracy import balanced_accuracy, interval, quote, top_k
from .calibration import calibration_error
from .confusion import Confusion, confusions
from .per_class import ClassScore, Macro, class_scores, macro_average

# Names of the parts in quoted accuracies.
QUOTED = {"train": "training", "val": "validation", "test": "test", "all": "overall"}


@dataclass(frozen=True)
class Accuracy:
    """An accuracy, 0 to 1, with its number of images and Wilson's 95 % interval."""

    images: int
    accuracy: float
    interval_95: tuple[float, float]


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on labelled images. Accuracies, shares and scores are 0 to 1.

    A hit is an image whose own class has the largest logit among all the model's classes, including
    those that the data lacks.
    """

    model: str
    """The bundle's path."""
    backbone: str
    """Its architecture, by timm's name."""
    data: str
    """The name of the data."""
    part: str
    """'train', 'val' or 'test', or 'all' for everything in data without a test part."""
    images: int
    """Number of images measured: those that could be read."""
    accuracy: float
    """Share of hits."""
    interval_95: tuple[float, float]
    """Wilson's 95 % interval of the accuracy."""
    top_5: float | None
    """Share of images whose class is among the five largest logits; None up to five classes."""
    balanced_accuracy: float
    """Mean recall over the classes that have images."""
    expected_calibration_error: float
    """Of calibrated probabilities; see calibration.calibration_error."""
    superclass_accuracy: float | None
    """Share of images predicted as a class of their superclass; None if the data has none."""
    unfamiliar: float | None
    """Share of images unlike the training data; None if the model cannot tell."""
    model_classes: int
    """The number of classes that the model knows."""
    taken_for_others: int
    """Number of images predicted as a class that has no images here."""
    trained_on: int
    """Number of images that the model was trained or chosen on: the same bytes under any name."""
    unseen: Accuracy | None
    """Accuracy on the other images; None if there are no others."""
    macro: Macro
    """Means of `per_class`."""
    per_class: tuple[ClassScore, ...]
    """Precision, recall and F1 of each class that has images, in the model's order."""
    confusions: tuple[Confusion, ...]
    """All pairs of classes that were confused, the most frequent first."""
    unreadable: tuple[Unreadable, ...]
    """Images that could not be read; the metrics leave them out."""

    @property
    def line(self) -> str:
        """The accuracy as it is quoted."""
        return quote(QUOTED[self.part], self.accuracy, self.images)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain values for JSON."""
        return asdict(self)


def sum_up(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    trained_on: NDArray[np.bool_],
    unfamiliar: NDArray[np.bool_] | None,
    *,
    model: str,
    backbone: str,
    classes: Sequence[str],
    temperature: float,
    data: str,
    part: str,
    superclasses: Mapping[str, str] | None = None,
    unreadable: Sequence[Unreadable] = (),
) -> Evaluation:
    """Return the metrics of n images, at least one.

    logits: (n, classes). labels: positions in `classes`, (n,). trained_on: which images the model
    was trained or chosen on, (n,). unfamiliar: which images it calls unfamiliar, (n,), or None if
    it cannot tell. temperature: divides the logits before the softmax. superclasses: the superclass
    of each of the data's classes, if it has any. The others are copied into the evaluation.
    """
    predicted = logits.argmax(axis=1)
    hits = labels == predicted
    scores = class_scores(labels, predicted, classes)
    overall = _accuracy(hits)
    return Evaluation(
        model=model,
        backbone=backbone,
        data=data,
        part=part,
        images=overall.images,
        accuracy=overall.accuracy,
        interval_95=overall.interval_95,
        top_5=top_k(logits, labels, 5) if len(classes) > 5 else None,
        balanced_accuracy=balanced_accuracy(logits, labels),
        expected_calibration_error=calibration_error(logits, labels, temperature),
        superclass_accuracy=(
            _superclass_accuracy(labels, predicted, classes, superclasses)
            if superclasses is not None
            else None
        ),
        unfamiliar=None if unfamiliar is None else float(unfamiliar.mean()),
        model_classes=len(classes),
        taken_for_others=int((~np.isin(predicted, labels)).sum()),
        trained_on=int(trained_on.sum()),
        unseen=None if trained_on.all() else _accuracy(hits[~trained_on]),
        macro=macro_average(scores),
        per_class=scores,
        confusions=confusions(labels, predicted, classes),
        unreadable=tuple(unreadable),
    )


def _accuracy(hits: NDArray[np.bool_]) -> Accuracy:
    share = float(hits.mean())
    return Accuracy(len(hits), share, interval(share, len(hits)))


def _superclass_accuracy(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    classes: Sequence[str],
    superclasses: Mapping[str, str],
) -> float:
    """Return the share of images predicted as a class of their own superclass.

    A class of the model that is not in `superclasses` belongs to none.
    """
    numbers = {name: number for number, name in enumerate(sorted(set(superclasses.values())))}
    above = np.array([numbers.get(superclasses.get(name, ""), -1) for name in classes])
    return float((above[labels] == above[predicted]).mean())
