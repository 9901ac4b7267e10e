"""Precision, recall and F1 of each class, and their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class. Hits are its images that were predicted as it."""

    name: str
    precision: float
    """Hits as a share of the images predicted as the class, 0 if there are none."""
    recall: float
    """Hits as a share of its images."""
    f1: float
    """Harmonic mean of the two, 0 if there are no hits."""
    support: int
    """Number of its images, at least one."""


@dataclass(frozen=True)
class Macro:
    """Means over classes, each with the same weight, however many images it has."""

    precision: float
    recall: float
    f1: float


def class_scores(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> tuple[ClassScore, ...]:
    """Return a score for each class that has images, in the order of `classes`.

    labels, predicted: positions in `classes`, (n,). A class without images has no recall and is
    left out; images predicted as it lower the recall of their own classes.
    """
    support = np.bincount(labels, minlength=len(classes))
    taken = np.bincount(predicted, minlength=len(classes))
    hits = np.bincount(labels[labels == predicted], minlength=len(classes))
    return tuple(
        ClassScore(
            name=classes[position],
            precision=float(hits[position] / max(1, taken[position])),
            recall=float(hits[position] / support[position]),
            f1=float(2 * hits[position] / (support[position] + taken[position])),
            support=int(support[position]),
        )
        for position in np.flatnonzero(support).tolist()
    )


def macro_average(scores: Sequence[ClassScore]) -> Macro:
    """Return the means of precision, recall (the balanced accuracy) and F1 over the classes."""
    rows = np.array([(score.precision, score.recall, score.f1) for score in scores])
    precision, recall, f1 = rows.mean(axis=0).tolist()
    return Macro(precision, recall, f1)
