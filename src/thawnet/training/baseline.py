"""The baselines of a run: the most frequent class, and regression on the frozen features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..metrics.accuracy import interval
from ..metrics.paired import count_pairs, mcnemar
from ..metrics.result import Baselines, Majority, Regression
from .regression import Fitted, Problem, validate

# More training images would take minutes with a hundred classes and change little.
MOST_IMAGES = 10_000
PENALTY = 1e-4  # if there are no validation images

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]  # (n, features), (n,)
Answer = Callable[[NDArray[np.float32]], NDArray[np.int64]]  # (n, features) -> classes (n,)


def taken(images: int) -> NDArray[np.int64]:
    """Return the positions of the training images that the regression learns from, shuffled."""
    return np.random.default_rng(0).permutation(images)[:MOST_IMAGES]


def baselines(
    regression: Fitted,
    training_images: int,
    frequent: int,
    measured: Iterable[Labelled],
    own: NDArray[np.bool_],
) -> Baselines:
    """Return the accuracies of both baselines on `measured`.

    regression: fitted on `training_images` images. frequent: the most frequent class. measured: in
    pieces, one in memory at a time. own: which images the run's own network is right on, (n,).
    """
    answers: list[Answer] = [answer_of(regression), lambda some: np.full(len(some), frequent)]
    right = hits(measured, answers)
    return scored(right, training_images, regression.penalty, own)


def scored(
    right: NDArray[np.bool_], training_images: int, penalty: float, own: NDArray[np.bool_]
) -> Baselines:
    """Return the baselines. right: which images regression and majority get right, (2, n)."""
    accuracy, majority = right.mean(axis=1)
    return Baselines(
        Majority(float(majority)),
        Regression(
            accuracy=float(accuracy),
            interval_95=interval(float(accuracy), len(own)),
            mcnemar_p=mcnemar(count_pairs(right[0], own)),
            training_images=training_images,
            penalty=penalty,
        ),
    )


def fit(
    train: Labelled, val: Labelled | None, classes: int, progress: Callable[[int], None]
) -> Fitted:
    """Return logistic regression on training images, with the penalty that validates best."""
    features, labels = map(torch.from_numpy, train)
    problem = Problem([features], labels, classes)
    if val is None:
        return problem.fitted(problem.solve(PENALTY), PENALTY)
    others, other_labels = map(torch.from_numpy, val)
    return validate(problem, others, other_labels, progress)


def answer_of(regression: Fitted) -> Answer:
    """Return the regression as a function from features to classes."""
    return lambda some: regression.logits(torch.from_numpy(some)).argmax(1).numpy()


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
