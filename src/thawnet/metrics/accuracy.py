"""Accuracies with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.text import counted
from .result import CalibrationErrors, LearningPoint, Regression

HELPS = 0.02  # of accuracy; more photos that add less help little
SIGNIFICANT = 0.05  # p; at or above this, a difference may be chance
AT_ONCE = 1024  # images per block: with many classes, all logits at once take too much memory


def interval(accuracy: float, images: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of an accuracy, both ends in [0, 1].

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    spread = z * z / images
    middle = (accuracy + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(accuracy * (1 - accuracy) / images + spread / (4 * images))
    return max(0.0, middle - half), min(1.0, middle + half)


def quote(part: str, accuracy: float, images: int) -> str:
    """Return an accuracy as all output quotes it.

    >>> quote("test", 0.7654, 10_000)
    'test accuracy: 76.54 % (95 % interval 75.70-77.36, 10,000 images)'
    """
    low, high = interval(accuracy, images)
    return (
        f"{part} accuracy: {100 * accuracy:.2f} % "
        f"(95 % interval {100 * low:.2f}-{100 * high:.2f}, {counted(images, 'image')})"
    )


def standing(accuracy: float, regression: Regression) -> str:
    """Compare a run with logistic regression, in a sentence without its full stop.

    accuracy: of the run, on the same images as that of `regression`.
    """
    points = 100 * (accuracy - regression.accuracy)
    p = regression.mcnemar_p
    name = "logistic regression on the frozen features"
    if not round(points, 2):
        return f"{name} is as good as this network"
    test = f"McNemar p = {p:.2g}"
    if p >= SIGNIFICANT:
        test = f"may be chance: {test}"
    if points < 0:
        return f"{name} is better than this network, by {-points:.2f} points ({test})"
    return f"this network is {points:.2f} points better than {name} ({test})"


def more_photos(curve: Sequence[LearningPoint]) -> str:
    """Return two sentences on whether more photos would help, from a learning curve.

    curve: of the head alone, from a quarter of the images to all.
    """
    half, whole = curve[1], curve[-1]
    low, high = half.gain_95
    reached = (
        f"The head alone is right for {100 * half.accuracy:.1f} % of other photos after learning "
        f"from {half.images:,}, and for {100 * whole.accuracy:.1f} % after {whole.images:,}."
    )
    if low > 0:
        return f"{reached} More photos would still help."
    if high < HELPS:
        return f"{reached} More photos like these would help little; better or other photos may."
    return f"{reached} These photos are too few to tell whether more would help."


def calibrated(errors: CalibrationErrors, fitted_on: int) -> str:
    """Describe the effect of the temperature on the expected calibration error.

    errors: of the measured images. fitted_on: how many other images the
    temperature was fitted on, 0 if none was fitted.
    """
    before, after = errors.uncalibrated, errors.calibrated
    if not fitted_on:
        return f"expected calibration error {100 * before:.2f} %, not calibrated"
    if before == after:
        return f"expected calibration error {100 * before:.2f} %, no temperature lowers it"
    images = counted(fitted_on, "image")
    worse = f"; fitted on {images}, the temperature made it worse" if after > before else ""
    return (
        f"expected calibration error {100 * after:.2f} % ({100 * before:.2f} % uncalibrated{worse})"
    )


def slices(images: int) -> Iterator[slice]:
    """Yield slices of AT_ONCE images that cover all of them."""
    for first in range(0, images, AT_ONCE):
        yield slice(first, first + AT_ONCE)


def top_k(logits: NDArray[np.float32], labels: NDArray[np.int64], k: int) -> float:
    """Return the share of images whose class is among the k largest logits, (n, classes)."""
    k = min(k, logits.shape[1])
    hits = 0
    for some in slices(len(labels)):
        best = np.argpartition(-logits[some], k - 1, axis=1)[:, :k]
        hits += int((best == labels[some, None]).any(axis=1).sum())
    return hits / len(labels)


def balanced_accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean recall over the classes that have images."""
    hits = logits.argmax(axis=1) == labels
    return float(np.mean([hits[labels == label].mean() for label in np.unique(labels)]))
