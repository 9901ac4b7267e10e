"""The confusion matrix, its confused pairs, and an order of classes that groups them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Confusion:
    """The number of images of class `true` that were predicted as class `predicted`."""

    true: str
    predicted: str
    images: int


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return counts, (classes, classes): [i, j] counts images of class i predicted as class j.

    labels, predicted: class positions, (n,).
    """
    codes = labels * classes + predicted
    return np.bincount(codes, minlength=classes**2).reshape(classes, classes)


def confusions(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> tuple[Confusion, ...]:
    """Return every pair of classes that was confused, the most frequent first.

    labels, predicted: positions in `classes`, (n,). Ties are in the order of `classes`.
    """
    wrong = labels != predicted
    codes, counts = np.unique(labels[wrong] * len(classes) + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(
        Confusion(classes[code // len(classes)], classes[code % len(classes)], count)
        for code, count in zip(codes[order].tolist(), counts[order].tolist(), strict=True)
    )


def confused_order(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the classes in an order that puts confused ones side by side, (classes,).

    matrix: see confusion_matrix. Classes are clustered with average linkage by the share of their
    images that are confused with each other. The leaves of the tree are ordered to put the most
    similar side by side (Bar-Joseph et al. 2001, "Fast optimal leaf ordering for hierarchical
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
