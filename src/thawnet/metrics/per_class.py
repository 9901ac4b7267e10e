"""Scores of each class, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassScore:
    """One class: hits are its images that were taken for it."""

    name: str
    precision: float
    """Hits as a share of the images taken for the class, 0 if none was."""
    recall: float
    """Hits as a share of its images."""
    f1: float
    """Their harmonic mean, 0 if there are no hits."""
    support: int
    """Its images, at least one."""


@dataclass(frozen=True)
class Macro:
    """Means over classes, each counted alike, however many images it has."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """A number of images of the class `true` that were taken for the class `predicted`."""

    true: str
    predicted: str
    images: int


def class_scores(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> tuple[ClassScore, ...]:
    """Return a score for each class that has images, in the order of `classes`.

    labels, predicted: positions in `classes`, (n,). A class without images has no recall and is
    left out; what was taken for it lowers the recall of others.
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


def confusions(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> tuple[Confusion, ...]:
    """Return every pair of classes that was confused, the most frequent first.

    labels, predicted: positions in `classes`, (n,). Equally frequent pairs are in their order.
    """
    wrong = labels != predicted
    codes, counts = np.unique(labels[wrong] * len(classes) + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(
        Confusion(classes[code // len(classes)], classes[code % len(classes)], count)
        for code, count in zip(codes[order].tolist(), counts[order].tolist(), strict=True)
    )


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return how many images of each class, (classes, classes), row, were taken for each, column.

    labels, predicted: class positions, (n,).
    """
    codes = labels * classes + predicted
    return np.bincount(codes, minlength=classes**2).reshape(classes, classes)


def confused_order(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the classes so that those that are confused lie beside each other, (classes,).

    matrix: see confusion_matrix. Classes are clustered by the share of their images that are
    taken for each other, average linkage, and the tree's leaves put in the order that has the most
    alike beside each other (Bar-Joseph et al. 2001, "Fast optimal leaf ordering for hierarchical
    clustering").
    """
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(matrix) < 3:
        return np.arange(len(matrix))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    alike = (shares + shares.T) / 2
    apart = 1 - alike / max(1e-12, float((alike - np.diag(np.diag(alike))).max()))
    np.fill_diagonal(apart, 0)
    distances = squareform(np.clip(apart, 0, None), checks=False)
    tree = optimal_leaf_ordering(linkage(distances, "average"), distances)
    return np.asarray(leaves_list(tree), np.int64)
