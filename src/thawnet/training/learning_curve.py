"""The head's accuracy from shares of the training images: whether more photos would help."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..metrics.paired import count_pairs, difference_interval
from ..metrics.result import LearningPoint
from .regression import Problem, Solution

SHARES = (0.25, 0.5, 0.75, 1.0)

# Which images learn, (n,) bool, and the logits that a solution gives to others, (m, classes).
Round = tuple[torch.Tensor, Callable[[Solution], torch.Tensor]]


def learning_curve(
    problem: Problem,
    labels: NDArray[np.int64],
    rounds: Sequence[Round],
    truth: NDArray[np.int64],
    penalty: float,
) -> tuple[LearningPoint, ...]:
    """Return what heads reach that learn from a quarter, a half, three quarters and all.

    labels: of the training images, (n,). rounds: of all of them the other images, one after
    another, have the classes `truth`. Smaller shares are parts of the larger; each has its share of
    every class.
    """
    reached: list[tuple[int, NDArray[np.bool_]]] = []
    starts: list[Solution | None] = [None] * len(rounds)
    for share in SHARES:
        some = torch.from_numpy(_share_of_each(labels, share))
        answers = []
        for number, (learn, logits_of) in enumerate(rounds):
            solution = problem.solve(penalty, learn & some, starts[number])
            starts[number] = solution
            answers.append(logits_of(solution).argmax(1).numpy())
        images = np.mean([int((learn & some).sum()) for learn, _ in rounds])
        reached.append((round(float(images)), np.concatenate(answers) == truth))
    of_each = np.bincount(truth, minlength=problem.classes)
    whole = reached[-1][1]
    return tuple(
        LearningPoint(
            images=images,
            accuracy=float(hits.mean()),
            recall=tuple(
                round(float(value), 4)
                for value in np.bincount(truth, hits, problem.classes) / np.maximum(of_each, 1)
            ),
            gain_95=difference_interval(count_pairs(hits, whole)),
        )
        for images, hits in reached
    )


def _share_of_each(labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return which rows are among the first `share` of their class, in a fixed random order."""
    some = np.zeros(len(labels), bool)
    order = np.random.default_rng(0).permutation(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        some[rows[: math.ceil(share * len(rows))]] = True
    return some
