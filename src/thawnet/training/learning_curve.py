"""Learning curve of the head, which shows whether more photos would help."""

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

# The images to train on, (n,) bool, and a function from a solution to the logits of the other
# images, (m, classes).
Round = tuple[torch.Tensor, Callable[[Solution], torch.Tensor]]


def learning_curve(
    problem: Problem,
    labels: NDArray[np.int64],
    rounds: Sequence[Round],
    truth: NDArray[np.int64],
    penalty: float,
) -> tuple[LearningPoint, ...]:
    """Return the results of heads trained on a quarter, half, three quarters and all images.

    labels: of the training images, (n,). truth: labels of the other images of all rounds, in order.
    Smaller shares are subsets of larger ones; each has its share of every class.
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
