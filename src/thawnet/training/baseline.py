"""What a run must beat: the most frequent class, and logistic regression on the frozen features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..report.metrics import interval

# More training images than these would take minutes with a hundred classes and change little.
MOST_IMAGES = 10_000
# Inverse strengths of the L2 penalty; the best on validation is taken. On 1,280 features of 3,500
# photos scikit-learn's default of 1 lost 10 points against 0.001.
STRENGTHS = (1e-4, 1e-3, 1e-2)

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]  # (n, features), (n,)


def taken(images: int) -> NDArray[np.int64]:
    """Return which of so many training images the regression learns from, in its order."""
    return np.random.default_rng(0).permutation(images)[:MOST_IMAGES]


def baselines(
    train: Labelled,
    frequent: int,
    val: Labelled | None,
    measured: Labelled,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Return the accuracies of both baselines on `measured`, as result.json holds them.

    train: the images `taken`. frequent: the most frequent class of all. val: chooses the penalty;
    without it the middle one is taken. progress: called after each fit.
    """
    features, labels = train
    best: tuple[float, float, Any] | None = None
    for strength in STRENGTHS if val is not None else STRENGTHS[1:2]:
        model = regression(features, labels, strength)
        score = float(model.score(*val)) if val is not None else 0.0
        if best is None or score > best[0]:
            best = score, strength, model
        progress(1)
    assert best is not None
    _, strength, model = best
    accuracy = float(model.score(*measured))
    return {
        "majority_class": {"accuracy": float((measured[1] == frequent).mean())},
        "logistic_regression_on_frozen_features": {
            "accuracy": accuracy,
            "interval_95": interval(accuracy, len(measured[1])),
            "training_images": len(labels),
            "C": strength,
        },
    }


def regression(features: NDArray[np.float32], labels: NDArray[np.int64], strength: float) -> Any:
    """Return logistic regression on standardised features, fitted; strength: scikit-learn's C."""
    from sklearn import linear_model, pipeline, preprocessing
    from sklearn.exceptions import ConvergenceWarning

    model = pipeline.Pipeline(  # type: ignore[no-untyped-call]
        [
            ("scale", preprocessing.StandardScaler()),  # type: ignore[no-untyped-call]
            (
                "fit",
                linear_model.LogisticRegression(  # type: ignore[no-untyped-call]
                    C=strength, max_iter=100, tol=1e-3
                ),
            ),
        ]
    )
    with warnings.catch_warnings():
        # A hundred steps are enough for a baseline whose penalty is chosen by its accuracy.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)
    return model
