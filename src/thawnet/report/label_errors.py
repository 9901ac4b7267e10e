"""Training labels that ridge regression on the frozen features disagrees with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

FOLDS = 5
AT_ONCE = 2048  # images
# Chosen on CIFAR-100 with 5 % of the labels flipped: of the 500 most suspect labels, 90 % were
# flipped; by the plain difference of scores, 75 % (docs/experiments.md).
PENALTY = 0.3  # as a share of the mean diagonal of the features' Gram matrix, X^T X
SHARPNESS = 10.0  # factor on the scores, mostly between 0 and 1, before the softmax

Batch = Callable[[NDArray[np.int64]], torch.Tensor]


def margins(
    features: Batch, labels: NDArray[np.int64], ties: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Score each training label by how strongly cross-validated ridge regression disagrees.

    Returns the margin against each label and the best-scoring other class, (n,) each.

    features: returns (n, d) for positions. labels: class positions, (n,). ties: (n,), see
    items.tied; images with the same number, such as copies, share a fold.
    Every image is scored by a classifier that did not see it: ridge regression on one-hot targets
    (Hoerl & Kennard 1970), in closed form, on the other four of five folds. Their normal equations
    are those of all images minus those of the fold, so one pass over the features fits all folds
    and a second one scores. A margin is the log odds against the label, by a softmax of the scores,
    in standard deviations over all images; it is at most 0 if the label scores highest.
    """
    count = len(labels)
    kinds, kind = np.unique(ties, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(kinds))[kind] % FOLDS
    width = features(np.arange(1)).shape[1] + 1
    products = torch.zeros(FOLDS, width, width, dtype=torch.float64)
    targets = torch.zeros(FOLDS, width, classes, dtype=torch.float64)
    for number in range(FOLDS):
        for rows in _pieces(np.flatnonzero(fold == number)):
            x = _with_one(features(rows))
            products[number] += (x.T @ x).double()
            # X^T Y for one-hot Y: the sum of each class's features.
            some = torch.from_numpy(labels[rows])
            targets[number].index_add_(1, some, x.T.double())
    scores = torch.empty(count, classes)
    for number in range(FOLDS):
        left = products.sum(0) - products[number]
        size = float(left[-1, -1])  # number of images, as the last feature is 1
        penalty = PENALTY * left.diagonal()[:-1].mean() * torch.eye(width, dtype=torch.float64)
        penalty[-1, -1] = 1e-6 * size
        weights = torch.linalg.solve(left + penalty, targets.sum(0) - targets[number]).float()
        for rows in _pieces(np.flatnonzero(fold == number)):
            scores[torch.from_numpy(rows)] = _with_one(features(rows)) @ weights
    own = torch.from_numpy(labels)[:, None]
    sharp = SHARPNESS * scores
    score = sharp.gather(1, own)[:, 0]
    sharp.scatter_(1, own, -torch.inf)
    best, other = sharp.max(1)
    odds = sharp.logsumexp(1) - score
    margin = torch.where(best > score, odds, odds.clamp(max=0))
    return (margin / margin.std().clamp_min(1e-12)).numpy(), other.numpy()


def _pieces(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.array_split(rows, len(rows) // AT_ONCE + 1)


def _with_one(x: torch.Tensor) -> torch.Tensor:
    """Append a constant feature of 1 to (n, d): (n, d + 1) float32 on the CPU."""
    x = x.float().cpu()
    return torch.cat([x, torch.ones(len(x), 1)], 1)
