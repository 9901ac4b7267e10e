"""Calibration of probabilities: expected calibration error and temperature scaling.

Guo et al. 2017, "On calibration of modern neural networks".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .accuracy import slices

BINS = 15  # as in the paper
LEAST, MOST = 0.05, 20.0
# Standard deviation of the normal prior on the temperature's logarithm. It matters only for a
# handful of images: they are often all classified correctly, which drives the temperature to 0.
PRIOR = 0.5
PARTS = 5  # folds that check whether a temperature helps


@dataclass(frozen=True)
class Bin:
    """Images of similar confidence: mean confidence, accuracy (both in [0, 1]) and number."""

    confidence: float
    accuracy: float
    images: int


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature, 0.05 to 20, by which to divide logits.

    logits: (n, classes), of images that were not trained on. labels: class positions, (n,).
    It minimises the cross-entropy of these images plus the negative log density of a normal prior
    on its logarithm.
    """
    from scipy.optimize import minimize_scalar

    def cost(log: float) -> float:
        return _cross_entropy(logits, labels, math.exp(log)) + 0.5 * (log / PRIOR) ** 2

    limits = (math.log(LEAST), math.log(MOST))
    best = minimize_scalar(cost, bounds=limits, method="bounded")
    return float(round(math.exp(best.x), 4))


def helpful_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the fitted temperature, or 1 if cross-validation finds that it does not help.

    Each of PARTS folds of the images is scored with the temperature fitted on the others.
    """
    part = np.random.default_rng(0).permutation(len(labels)) % PARTS
    with_it, without = 0.0, 0.0
    for number in range(min(PARTS, len(labels))):
        own, others = part == number, part != number
        if not others.any():
            return 1.0
        fitted = fit_temperature(logits[others], labels[others])
        with_it += _cross_entropy(logits[own], labels[own], fitted)
        without += _cross_entropy(logits[own], labels[own], 1.0)
    return fit_temperature(logits, labels) if with_it < without else 1.0


def calibration_error(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float = 1.0
) -> float:
    """Return the expected calibration error of the predicted class, 0 to 1.

    logits: (n, classes). Images are binned by the probability of that class. The error is the mean
    over images of the gap between their bin's accuracy and its mean probability.
    """
    bins = bins_of(logits, labels, temperature)
    gaps = [one.images * abs(one.accuracy - one.confidence) for one in bins]
    return float(sum(gaps) / len(labels))


def bins_of(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float = 1.0
) -> list[Bin]:
    """Bin images by the probability of the predicted class, without empty bins.

    As in `calibration_error`: BINS bins of equal width, the lowest probability first.
    """
    confidences = np.concatenate(
        [_largest_share(logits[some], temperature) for some in slices(len(labels))]
    )
    hits = logits.argmax(axis=1) == labels
    bins = np.minimum((confidences * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = zip(np.bincount(bins, confidences, BINS), np.bincount(bins, hits, BINS), strict=True)
    return [
        Bin(float(confidence / images), float(right / images), int(images))
        for images, (confidence, right) in zip(counts.tolist(), sums, strict=True)
        if images
    ]


def _largest_share(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return the largest softmax probability of each row of logits, (n, classes).

    It uses only numpy, so that evaluating needs no more packages than predicting.
    """
    exponents = logits.astype(np.float64) / temperature
    powers = np.exp(exponents - exponents.max(axis=1, keepdims=True))  # the largest is 1
    shares: NDArray[np.float64] = 1 / powers.sum(axis=1)
    return shares


def _cross_entropy(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float
) -> float:
    """Return the cross-entropy summed over images, in nats."""
    from scipy.special import log_softmax

    total = 0.0
    for some in slices(len(labels)):
        logs = log_softmax(logits[some].astype(np.float64) / temperature, axis=1)
        total -= float(logs[np.arange(len(logs)), labels[some]].sum())
    return total
