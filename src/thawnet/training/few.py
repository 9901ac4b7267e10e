"""Phase 2 for few images: fine-tuning in each fold as a trial, then on all images if it pays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import console
from ..core.text import counted, duration
from ..metrics.result import Validation
from ..model.thawing import thawed_tensors, training_mode
from .checkpoint import Keeper, timed
from .context import Run
from .evidence import Evidence, weigh
from .familiarity import LEAST_VALIDATION
from .head import use
from .loop import Epoch, batches, metrics_of, train_epoch
from .phase import learning_seconds, open_feed
from .plan import NAMES
from .regression import Fitted
from .tail import Tail
from .trunk.runtime import frozen_function, spread

MARKS = 5  # validations of a fold, evenly spread over its epochs


@dataclass(frozen=True)
class Mark:
    """Results of fine-tuning in a fold after some of its epochs."""

    epoch: int
    """Number of epochs so far."""
    train_loss: float
    """Running loss of that epoch; `train_accuracy` is running too."""
    train_accuracy: float
    images: int
    """Number of images that it learned from."""
    logits: torch.Tensor
    """Logits of the fold's own images, which it did not learn from, (n, classes)."""


def fine_tune_folds(run: Run, keeper: Keeper) -> None:
    """Fine-tune once for each fold, on the images of all others, and keep it if it pays.

    If it does, the network is fine-tuned on all images for as many epochs; else the head alone is
    kept. Each image is validated by the network that did not learn from it. The remaining folds are
    skipped once earlier ones show that fine-tuning does not pay or, if a test part will measure the
    accuracy, that it does.
    """
    state = run.state
    tested = run.lists.test is not None and not run.options.no_test
    tuning = _Tuning(run)
    if state.folds:
        console.say(f"continuing after fold {len(state.folds)} of {run.recipe.folds}")
    with keeper.stopping_at_once():
        while len(state.folds) < run.recipe.folds:
            fold = len(state.folds)
            with timed(state, tuning.plan.name):
                state.folds.append([vars(mark) for mark in tuning.fold(fold)])
            keeper.save()
            evidence = tuning.evidence()
            each = state.seconds[tuning.plan.name] / len(state.folds)
            left = each * (run.recipe.folds - len(state.folds) + 1)  # all images come last
            console.say(
                f"fold {fold + 1} of {run.recipe.folds} fine-tuned: so far {evidence.tuned.hits} "
                f"of {counted(evidence.images, 'held-out image')} right, the head alone "
                f"{evidence.head.hits}; at most {duration(left)} left"
            )
            enough = not evidence.better or (tested and evidence.images >= LEAST_VALIDATION)
            if fold and evidence.decided and enough:
                break
        evidence = tuning.evidence()
        console.say(evidence.sentence("held-out"))
        tuning.record(evidence.better)
        if evidence.better:
            with timed(state, tuning.plan.name):
                tuning.whole()
            state.logits["validation"] = tuning.logits()
        else:
            state.kept = NAMES[0]
            state.logits["validation"] = tuning.head.logits
    state.phase, state.network = 2, run.network.net.state_dict()
    keeper.save()


def held_out(run: Run) -> NDArray[np.int64]:
    """Return the positions of training images in the fine-tuned folds, fold by fold."""
    done = range(len(run.state.folds))
    return np.concatenate([np.flatnonzero(run.folds == fold) for fold in done])


class _Tuning:
    """Fine-tuning on few images, starting from the solved head."""

    def __init__(self, run: Run) -> None:
        assert run.folds is not None
        assert run.state.head is not None
        self.run, self.folds, self.plan = run, run.folds, run.plan[1]
        self.head = run.state.head
        self._start = thawed_tensors(run.network, self.plan.layer)
        with timed(run.state, "features"):
            self._feed = open_feed(run, self.plan, "train", 1)
            self._plain = open_feed(run, self.plan, "validation", 1).epoch(0)
        self._labels = torch.from_numpy(run.train.labels).to(run.machine.torch_device)
        phase = self.plan.phase
        console.say(
            f"phase 2, {self.plan.name}: from {self.plan.layer}, in each of {run.recipe.folds} "
            f"folds starting from that fold's head, {counted(phase.epochs, 'epoch')}, "
            f"batch {phase.batch_size}"
        )

    def fold(self, fold: int) -> list[Mark]:
        """Return the marks of a fold's fine-tuning."""
        rows, held = np.flatnonzero(self.folds != fold), np.flatnonzero(self.folds == fold)
        title = f"fine-tuning, fold {fold + 1} of {self.run.recipe.folds}"
        return list(self._tuned(rows, Fitted(**self.head.folds[fold]), held, title))

    def whole(self) -> None:
        """Fine-tune the final network, on all images."""
        solved = self.head.solved
        assert solved is not None
        rows = np.arange(len(self.folds))
        list(self._tuned(rows, Fitted(**solved), rows[:0], "fine-tuning on all images"))
        self.run.network.net.load_state_dict(self._evaluated.net.state_dict())

    def _tuned(
        self, rows: NDArray[np.int64], head: Fitted, held: NDArray[np.int64], title: str
    ) -> Iterator[Mark]:
        """Fine-tune from a head on some rows; yield the marks on the others, `held`."""
        run, phase = self.run, self.plan.phase
        run.network.net.load_state_dict(self._start, strict=False)
        use(run, head)
        tail = Tail(run.network, self.plan, run.machine)
        training_mode(run.network, phase.batch_norm, phase.bn_momentum)
        marks = {round(phase.epochs * number / MARKS) for number in range(1, MARKS + 1)}
        with console.progress(title, len(rows) * phase.epochs) as advance:
            for epoch in range(phase.epochs):
                key = [run.recipe.seed, epoch, 0x0BDE]
                order = [rows[some] for some in batches(len(rows), phase, key)]
                trained = train_epoch(
                    tail.learner,
                    Epoch(
                        batch=self._feed.epoch(1 + epoch),
                        labels=self._labels,
                        loss_weights=run.loss_weights,
                        order=order,
                        first_step=epoch * len(order),
                        steps=phase.epochs * len(order),
                        seed=run.recipe.seed,
                    ),
                    advance,
                )
                if epoch + 1 in marks:
                    logits = self._answers(tail, held)
                    yield Mark(epoch + 1, trained.loss, trained.accuracy, len(rows), logits)
        self._evaluated = tail.evaluated
        if not len(held):
            return
        run.network.net.load_state_dict(self._start, strict=False)
        assert self.head.solved is not None
        use(run, Fitted(**self.head.solved))

    def _answers(self, tail: Tail, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the logits of some images in their plain view, (n, classes)."""
        if not len(rows):
            return torch.empty(0, len(self.run.source.classes))
        machine = self.run.machine
        frozen = frozen_function(tail.evaluated, self.plan.split, None, machine, briefly=True)
        return spread(machine, frozen, self._plain(rows)).float().cpu()

    # --- the images that were held out so far ----------------------------------------------------

    def logits(self) -> torch.Tensor:
        """Return the logits of all images that were held out, in order of position."""
        last = torch.cat([marks[-1]["logits"] for marks in self.run.state.folds])
        return last[torch.from_numpy(np.argsort(held_out(self.run)))]

    def evidence(self) -> Evidence:
        """Compare fine-tuning with the head alone on the images that were held out."""
        held = np.sort(held_out(self.run))
        labels = torch.from_numpy(self.run.train.labels[held])
        return weigh(self.head.logits[held], self.logits(), labels)

    def record(self, kept: bool) -> None:
        """Write a row of the log for each mark. kept: whether the last is the result."""
        run, state = self.run, self.run.state
        held = held_out(self.run)
        labels = torch.from_numpy(run.train.labels[held])
        spent = state.seconds[self.plan.name]
        before = learning_seconds(state) - spent
        for number, marks in enumerate(zip(*state.folds, strict=True)):
            val = metrics_of(torch.cat([mark["logits"] for mark in marks]), labels)
            share = marks[0]["epoch"] / self.plan.phase.epochs
            last = number == len(state.folds[0]) - 1
            row = Validation(
                epoch=1 + marks[0]["epoch"],
                phase=1,
                train_loss=round(float(np.mean([mark["train_loss"] for mark in marks])), 5),
                train_accuracy=round(float(np.mean([mark["train_accuracy"] for mark in marks])), 5),
                val_loss=round(val.loss, 5),
                val_accuracy=round(val.accuracy, 5),
                seconds=round(spent * share, 2),
                images_per_second=round(
                    sum(mark["images"] for mark in marks) * self.plan.phase.epochs / spent, 1
                ),
                elapsed=round(before + spent * share, 2),
                kept=kept and last,
            )
            run.record(row)
