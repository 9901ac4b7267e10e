"""Logistic regression on frozen features, solved to its optimum: the head of small data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

# Penalties, strongest first. With features of length 1, the first gives all images one class and
# the last has hardly any effect.
PENALTIES = tuple(10 ** (-power / 2) for power in range(3, 14))
STEPS = 100  # of L-BFGS at most; about twenty are needed
EXACT_ROWS = 4096
RANK = 1e-5  # directions with a smaller share of the largest spread hold only rounding errors


@dataclass(frozen=True)
class Fitted:
    """A linear layer, and the penalty that it was fitted with."""

    weight: torch.Tensor
    """(classes, features) float32."""
    bias: torch.Tensor
    """(classes,) float32."""
    penalty: float

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return (n, classes) for features (n, d)."""
        return F.linear(features.float(), self.weight, self.bias)


Solution = tuple[torch.Tensor, torch.Tensor]  # weights (directions, classes), biases (classes,)


class Problem:
    """Multinomial logistic regression on one or more views of images.

    It minimises the mean cross-entropy plus penalty / 2 times the squared weights; biases are not
    penalised. Features are divided by their mean length, so that a penalty means the same for every
    network. The problem is solved along the principal directions of the features, each scaled by
    its own curvature, so that L-BFGS needs few steps.
    """

    def __init__(
        self,
        views: Sequence[torch.Tensor],
        labels: torch.Tensor,
        classes: int,
        loss_weights: torch.Tensor | None = None,
    ) -> None:
        """Find the principal directions of the features.

        views: features of the same images, (n, d) each, the plain view first. labels: (n,).
        loss_weights: of the classes, (classes,), see loop.loss_weights.
        """
        self.images, self.views, self.classes = len(labels), len(views), classes
        self._labels = labels.repeat(len(views))
        self._weights = None if loss_weights is None else loss_weights.cpu()
        features = torch.cat([view.float() for view in views])
        self._scale = float(features.norm(dim=1).mean().clamp_min(1e-12))
        features = features / self._scale
        self._centre = features.mean(0)
        features -= self._centre
        # float64 where that is cheap: the few directions of few rows are then found exactly.
        exact = len(features) <= EXACT_ROWS
        x = features.double() if exact else features
        square = x @ x.T if len(x) < x.shape[1] else x.T @ x
        spread, basis = torch.linalg.eigh(square.double())
        kept = spread > spread[-1].clamp_min(1e-12) * RANK**2
        self._spread, basis = spread[kept] / len(x), basis[:, kept].to(x.dtype)
        if len(x) < x.shape[1]:
            basis = x.T @ (basis / (self._spread * len(x)).sqrt())
        self._basis = basis  # (d, directions)
        self._x = x @ basis  # (views * n, directions)

    def solve(
        self, penalty: float, images: torch.Tensor | None = None, start: Solution | None = None
    ) -> Solution:
        """Return the optimum. images: which to train on, (n,) bool; all if None. start: a guess."""
        x, labels = self._x, self._labels
        if images is not None:
            rows = images.repeat(self.views)
            x, labels = x[rows], labels[rows]
        if start is None:
            start = x.new_zeros(x.shape[1], self.classes), x.new_zeros(self.classes)
        # Curvature: p (1 - p) from the loss of a class with probability p, plus the penalty.
        shares = torch.addmm(start[1], x, start[0]).softmax(1)
        bend = (shares * (1 - shares)).mean()
        unit = (bend * self._spread.to(x) + penalty).rsqrt()[:, None]
        weights = (start[0] / unit).requires_grad_()
        biases = start[1].clone().requires_grad_()
        loss_weights = None if self._weights is None else self._weights.to(x)
        optimizer = torch.optim.LBFGS(
            [weights, biases],
            max_iter=STEPS,
            tolerance_grad=1e-5,
            tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )

        def loss() -> float:
            optimizer.zero_grad()
            own = weights * unit
            terms = F.cross_entropy(
                torch.addmm(biases, x, own), labels, weight=loss_weights, reduction="none"
            )
            value = terms.mean() + penalty / 2 * own.square().sum()
            value.backward()
            return float(value.detach())

        optimizer.step(loss)
        return (weights * unit).detach(), biases.detach()

    def plain_logits(self, solution: Solution, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of plain views, (m, classes) float32. images: which, (n,) bool."""
        return torch.addmm(solution[1], self._x[: self.images][images], solution[0]).float()

    def fitted(self, solution: Solution, penalty: float) -> Fitted:
        """Return a solution as a linear layer for the network's unscaled features."""
        weight = self._basis @ solution[0]  # (d, classes)
        bias = solution[1] - self._centre.to(weight) @ weight
        return Fitted((weight / self._scale).T.float().contiguous(), bias.float(), penalty)


@dataclass(frozen=True)
class CrossValidated:
    """A penalty chosen by cross-validation, and its results."""

    penalty: float
    folds: list[Solution]
    """The solution of each fold, learned from the images of all others."""
    logits: torch.Tensor
    """Held-out logits of every image, (n, classes) float32."""
    loss: float
    """Their mean cross-entropy in nats."""


def cross_validate(
    problem: Problem,
    labels: torch.Tensor,
    folds: NDArray[np.int64],
    progress: Callable[[int], None],
) -> CrossValidated:
    """Choose the penalty with the lowest loss on held-out images.

    Penalties are tried from the strongest on, each starting from the solutions of the one before,
    until the loss no longer falls. labels: (n,). folds: fold of each image, (n,), from 0. progress:
    called after each solution.
    """
    held = [torch.from_numpy(folds == fold) for fold in range(int(folds.max()) + 1)]
    best: CrossValidated | None = None
    starts: list[Solution | None] = [None] * len(held)
    for penalty in PENALTIES:
        logits = torch.empty(problem.images, problem.classes)
        solutions = []
        for images, start in zip(held, starts, strict=True):
            solution = problem.solve(penalty, ~images, start)
            logits[images] = problem.plain_logits(solution, images)
            solutions.append(solution)
            progress(1)
        loss = float(F.cross_entropy(logits, labels))
        if best is not None and loss >= best.loss:
            break
        best = CrossValidated(penalty, solutions, logits, loss)
        starts = list(solutions)
    assert best is not None
    return best


def validate(
    problem: Problem,
    features: torch.Tensor,
    labels: torch.Tensor,
    progress: Callable[[int], None],
) -> Fitted:
    """Return the solution with the penalty that validates best, tried as in `cross_validate`.

    features, labels: of the validation images, (n, d) and (n,).
    """
    best: Fitted | None = None
    least, start = float("inf"), None
    for penalty in PENALTIES:
        start = problem.solve(penalty, start=start)
        head = problem.fitted(start, penalty)
        loss = float(F.cross_entropy(head.logits(features), labels))
        progress(1)
        if loss >= least:
            break
        best, least = head, loss
    assert best is not None
    return best
