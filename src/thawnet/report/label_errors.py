"""Training labels that ridge regression on the frozen features disagrees with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

FOLDS = 5
AT_ONCE = 2048  # images
# Chosen on CIFAR-100 with 5 % of the labels flipped, where 90 % of the 500 most suspect were: the
# plain difference of scores finds 75 % (docs/experiments.md).
PENALTY = 0.3  # of the mean diagonal of the features' covariance
SHARPNESS = 10.0  # scores, mostly between 0 and 1, are multiplied by before the softmax

Batch = Callable[[NDArray[np.int64]], torch.Tensor]


def margins(
    features: Batch, labels: NDArray[np.int64], ties: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return how strongly each label is disagreed with, and the class preferred: (n,) each.

    features: gives (n, d) for positions. labels: class positions, (n,). ties: see items.tied, (n,);
    those of one number, such as copies, are judged together.
    Every image is judged by a classifier that did not see it: ridge regression on one-hot targets
    (Hoerl & Kennard 1970), in closed form, on the other four of five folds. Their normal equations
    are those of all images less those of the fold, so that one pass over the features serves all
    folds, and a second judges. Margins are the logarithm of the odds against the label, by a
    softmax of the scores, in standard deviations over all images; at most 0 where it comes first.
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
            # The sum of each class's features, which one-hot targets pick out.
            some = torch.from_numpy(labels[rows])
            targets[number].index_add_(1, some, x.T.double())
    scores = torch.empty(count, classes)
    for number in range(FOLDS):
        left = products.sum(0) - products[number]
        size = float(left[-1, -1])  # images; the last feature is 1
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
    """Return (n, d) with a feature that is always 1, (n, d + 1), on the CPU in float32."""
    x = x.float().cpu()
    return torch.cat([x, torch.ones(len(x), 1)], 1)
