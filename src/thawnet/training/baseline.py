"""The baselines of a run: the most frequent class, and regression on the frozen features."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.accuracy import interval
from ..metrics.paired import count_pairs, mcnemar
from ..metrics.result import Baselines, Majority, Regression

# More training images than these would take minutes with a hundred classes and change little.
MOST_IMAGES = 10_000
# Inverse strengths of the L2 penalty; the best on validation is taken. On 1,280 features of 3,500
# photos scikit-learn's default of 1 lost 10 points against 0.001.
STRENGTHS = (1e-4, 1e-3, 1e-2)

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]  # (n, features), (n,)
Answer = Callable[[NDArray[np.float32]], NDArray[np.int64]]  # (n, features) -> classes (n,)


def taken(images: int) -> NDArray[np.int64]:
    """Return which of so many training images the regression learns from, in its order."""
    return np.random.default_rng(0).permutation(images)[:MOST_IMAGES]


def baselines(
    train: Labelled,
    frequent: int,
    val: Iterable[Labelled] | None,
    measured: Iterable[Labelled],
    own: NDArray[np.bool_],
    progress: Callable[[int], None],
) -> Baselines:
    """Return the accuracies of both baselines on `measured`.

    train: the images `taken`. frequent: the most frequent class of all. val: chooses the penalty;
    without it the middle one is taken. Both `val` and `measured` come in pieces, of which one is
    held at a time. own: which of `measured` the run's own network is right on, (n,). progress:
    called after each fit.
    """
    features, labels = train
    strengths = STRENGTHS if val is not None else STRENGTHS[1:2]
    models: list[Any] = []
    for strength in strengths:
        models.append(regression(features, labels, strength))
        progress(1)
    chosen_by = hits(val or (), [model.predict for model in models])
    best = int(np.argmax(chosen_by.sum(axis=1)))  # the first, the strongest penalty, of equals
    answers: list[Answer] = [models[best].predict, lambda some: np.full(len(some), frequent)]
    right = hits(measured, answers)
    accuracy, majority = right.mean(axis=1)
    return Baselines(
        Majority(float(majority)),
        Regression(
            accuracy=float(accuracy),
            interval_95=interval(float(accuracy), len(own)),
            mcnemar_p=mcnemar(count_pairs(right[0], own)),
            training_images=len(labels),
            C=strengths[best],
        ),
    )


def joined(pieces: Iterable[Labelled]) -> Labelled:
    """Return all pieces as one."""
    features, labels = zip(*pieces, strict=True)
    return np.concatenate(features), np.concatenate(labels)


def hits(pieces: Iterable[Labelled], answers: Sequence[Answer]) -> NDArray[np.bool_]:
    """Return which images each answer is right on, (answers, n)."""
    right = [np.zeros((len(answers), 0), bool)]
    for features, labels in pieces:
        right.append(np.stack([answer(features) == labels for answer in answers]))
    return np.concatenate(right, axis=1)


def regression(features: NDArray[np.float32], labels: NDArray[np.int64], strength: float) -> Any:
    """Return logistic regression on standardised features, fitted; strength: scikit-learn's C."""
    from sklearn import linear_model, pipeline, preprocessing
    from sklearn.exceptions import ConvergenceWarning

    model = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        linear_model.LogisticRegression(C=strength, max_iter=100, tol=1e-3),
    )
    with warnings.catch_warnings():
        # A hundred steps are enough for a baseline whose penalty is chosen by its accuracy.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)
    return model
