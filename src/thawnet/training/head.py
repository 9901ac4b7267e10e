"""Phase 1 for small data sets: the head is solved to its optimum on cached features."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from ..core import console
from ..core.text import counted
from ..data.store import ImageStore
from ..metrics.result import LearningPoint, Validation
from .checkpoint import Head, Keeper, timed
from .context import Run
from .learning_curve import learning_curve
from .loop import metrics_of
from .phase import learning_seconds, open_feed
from .regression import PENALTIES, Fitted, Problem, Solution, cross_validate, validate
from .trunk.feeds import Batch

ALIKE = 1e-4  # share of the largest feature; the features of photos differ by a tenth and more
AT_ONCE = 1000  # images whose features are read together


def solve_head(run: Run, keeper: Keeper) -> None:
    """Do phase 1: solve the head, record its validation, and copy it into the network.

    The ranks share the work of caching the features; the leader alone solves.
    """
    state, plan = run.state, run.plan[0]
    count = sum(value.numel() for value in run.network.head.parameters())
    console.say(f"phase 1, {plan.name}: {count:,} parameters are solved to their optimum")
    with timed(state, "features"), keeper.stopping_at_once():
        views, val = training_views(run), val_features(run)
    if _are_alike(views[0]):
        console.say(
            "the frozen features are nearly the same for all images: check the images, and that "
            "the weights are complete and belong to this backbone"
        )
    started = time.perf_counter()
    with timed(state, plan.name):
        solved = run.world.lead(lambda: _solved(run, views, val))
    head, logits = solved.head, solved.logits
    use(run, head)
    state.head = Head(
        logits,
        solved=vars(head),
        folds=[vars(fold) for fold in solved.folds],
        curve=[asdict(point) for point in solved.curve],
    )
    _record(run, head, views[0], logits, time.perf_counter() - started)
    state.phase, state.network = 1, run.network.net.state_dict()
    keeper.save()


def _are_alike(features: torch.Tensor) -> bool:
    """Return whether features, (n, d), are the same for all images, up to rounding."""
    return bool(features.std(0, correction=0).max() <= ALIKE * features.abs().max())


def use(run: Run, head: Fitted) -> None:
    """Copy a solved head into the network."""
    with torch.no_grad():
        run.network.head.weight.copy_(head.weight)
        run.network.head.bias.copy_(head.bias)


def solved_head(run: Run) -> Fitted | None:
    """Return the head that phase 1 solved; None if it was trained in steps."""
    head = run.state.head
    return None if head is None or head.solved is None else Fitted(**head.solved)


def training_views(run: Run) -> list[torch.Tensor]:
    """Return the frozen features of the training images in each view, (n, d) float32 each."""
    plan = run.plan[0]
    feed = open_feed(run, plan, "train", 0)
    return [_all(feed.epoch(view), run.train) for view in range(plan.phase.views)]


def val_features(run: Run) -> torch.Tensor | None:
    """Return the frozen features of the validation images, (n, d); None if there are folds."""
    if run.folds is not None:
        return None
    return _all(open_feed(run, run.plan[0], "validation", 0).epoch(0), run.val)


def problem_of(run: Run, views: list[torch.Tensor]) -> Problem:
    """Return the regression that learns from all training images."""
    labels = torch.from_numpy(run.train.labels)
    return Problem(views, labels, len(run.source.classes), run.loss_weights)


@dataclass(frozen=True)
class _Solved:
    """A solved head, the heads of the folds, and their results."""

    head: Fitted
    folds: list[Fitted]
    logits: torch.Tensor
    """Validation logits, (n, classes); with folds, each image's from the head of its own fold."""
    curve: tuple[LearningPoint, ...]


def _solved(run: Run, views: list[torch.Tensor], val: torch.Tensor | None) -> _Solved:
    """Solve the head. val: features of the validation images; None if there are folds."""
    problem = problem_of(run, views)
    labels = run.train.labels
    if run.folds is None:
        assert val is not None
        with console.progress("choosing the penalty", len(PENALTIES)) as advance:
            head = validate(problem, val, torch.from_numpy(run.val.labels), advance)
        everyone = torch.ones(len(labels), dtype=torch.bool)

        def answers(solution: Solution) -> torch.Tensor:
            return problem.fitted(solution, head.penalty).logits(val)

        rounds = [(everyone, answers)]
        curve = learning_curve(problem, labels, rounds, run.val.labels, head.penalty)
        return _Solved(head, [], head.logits(val), curve)
    solutions = len(PENALTIES) * run.recipe.folds
    with console.progress("choosing the penalty", solutions) as advance:
        chosen = cross_validate(problem, torch.from_numpy(labels), run.folds, advance)
    head, *folds = (
        problem.fitted(solution, chosen.penalty)
        for solution in (problem.solve(chosen.penalty), *chosen.folds)
    )
    held = [torch.from_numpy(run.folds == fold) for fold in range(len(folds))]
    rounds = [(~own, partial(problem.plain_logits, images=own)) for own in held]
    truth = np.concatenate([labels[own.numpy()] for own in held])
    curve = learning_curve(problem, labels, rounds, truth, chosen.penalty)
    return _Solved(head, folds, chosen.logits, curve)


def _all(batch: Batch, images: ImageStore) -> torch.Tensor:
    positions = np.arange(len(images))
    pieces = np.array_split(positions, len(positions) // AT_ONCE + 1)
    return torch.cat([batch(some).float().cpu() for some in pieces])


def _record(
    run: Run, head: Fitted, plain: torch.Tensor, logits: torch.Tensor, spent: float
) -> None:
    """Log the head's results. plain: training features of the plain view, (n, d)."""
    state = run.state
    trained = metrics_of(head.logits(plain), torch.from_numpy(run.train.labels))
    val = metrics_of(logits, torch.from_numpy(run.val.labels))
    row = Validation(
        epoch=1,
        phase=0,
        train_loss=round(trained.loss, 5),
        train_accuracy=round(trained.accuracy, 5),
        val_loss=round(val.loss, 5),
        val_accuracy=round(val.accuracy, 5),
        seconds=round(spent, 2),
        images_per_second=round(trained.images / spent, 1),
        elapsed=round(learning_seconds(state), 2),
        kept=True,
    )
    run.record(row)
    console.say(
        f"head solved in {spent:.1f} s from {counted(run.plan[0].phase.views, 'view')} of each "
        f"image, penalty {head.penalty:.0e}: "
        f"train {100 * row.train_accuracy:.2f} % loss {row.train_loss:.3f}   "
        f"{run.validated_on} {100 * row.val_accuracy:.2f} % loss {row.val_loss:.3f}"
    )
