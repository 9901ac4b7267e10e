"""Calibration of probabilities: the expected error, and the temperature that mends it.

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
# How far the logarithm of the temperature is expected to be from 0. It decides on a handful of
# images only, which are often all right and would ask for a temperature of nothing.
PRIOR = 0.5
PARTS = 5  # in which a temperature shows whether it helps


@dataclass(frozen=True)
class Bin:
    """Images of about the same confidence: its mean and their accuracy, in [0, 1], and number."""

    confidence: float
    accuracy: float
    images: int


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature, 0.05 to 20, that logits are to be divided by.

    logits: (n, classes) of images that nothing was learnt from. labels: class positions, (n,).
    It minimises the cross-entropy of these images plus that of its own logarithm under a normal
    prior.
    """
    from scipy.optimize import minimize_scalar

    def cost(log: float) -> float:
        return _cross_entropy(logits, labels, math.exp(log)) + 0.5 * (log / PRIOR) ** 2

    limits = (math.log(LEAST), math.log(MOST))
    best = minimize_scalar(cost, bounds=limits, method="bounded")
    return float(round(math.exp(best.x), 4))


def helpful_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return `fit_temperature`'s, or 1 where that does not help on images that it is not fitted on.

    Whether it helps is found out in PARTS parts of the images, each with the temperature of the
    others.
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
    """Return the expected calibration error of the class predicted, 0 to 1.

    logits: (n, classes). Images are binned by the probability of that class; it is the mean over
    images of how far a bin's share of hits is from its mean probability.
    """
    bins = bins_of(logits, labels, temperature)
    gaps = [one.images * abs(one.accuracy - one.confidence) for one in bins]
    return float(sum(gaps) / len(labels))


def bins_of(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float = 1.0
) -> list[Bin]:
    """Return the images in bins of the probability of the class predicted, without empty ones.

    As for `calibration_error`: BINS bins of one width, the least sure first.
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
    """Return the largest probability of each row of logits, (n, classes).

    In numpy, so that measuring needs no more packages than predicting does.
    """
    exponents = logits.astype(np.float64) / temperature
    powers = np.exp(exponents - exponents.max(axis=1, keepdims=True))  # the largest is 1
    shares: NDArray[np.float64] = 1 / powers.sum(axis=1)
    return shares


def _cross_entropy(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float
) -> float:
    """Return the sum over images, in nats."""
    from scipy.special import log_softmax

    total = 0.0
    for some in slices(len(labels)):
        logs = log_softmax(logits[some].astype(np.float64) / temperature, axis=1)
        total -= float(logs[np.arange(len(logs)), labels[some]].sum())
    return total
