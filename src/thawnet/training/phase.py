"""One phase: thawing its layers, its epochs, and the choice of the network to keep."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from ..core import console
from ..core.errors import RunError, UsageError
from ..core.text import counted
from ..metrics.result import Validation, write_log
from ..model.thawing import thawed_tensors, training_mode
from ..recipe import Phase
from .checkpoint import Head, Keeper, RunState, timed
from .context import Run
from .evidence import weigh
from .loop import Epoch, Metrics, batches, evaluate, train_epoch
from .plan import NAMES, PhasePlan
from .tail import Tail
from .trunk.feeds import Batch, Feed, make_feed
from .trunk.runtime import frozen_function, spread

EVALUATION_BATCH = 250
LEARNING = ("features", *NAMES)  # stages counted as learning: no opening of data, no compiling
LEAST_BATCH = 8  # below it batch-norm's statistics are noise
LINES = 20  # about as many epochs are printed per phase


class PhaseJob:
    """A phase under way; its progress is in `run.state`."""

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.number = number
        state, machine = run.state, run.machine
        if self.phase.batch_size < 2 * run.world.size:
            raise UsageError(
                f"a batch of {self.phase.batch_size} images is too small for {run.world.size} "
                "processes, which need two images each; start fewer"
            )
        self.tail = self._new_tail()
        if number and state.head is not None and state.head.tensors is None:
            state.head = replace(state.head, tensors=thawed_tensors(run.network, self.plan.layer))
        if state.optimizer is not None:
            self.tail.learner.optimizer.load_state_dict(state.optimizer)
        if state.averaged is not None:
            self.tail.averaged.net.load_state_dict(state.averaged)
        count = sum(value.numel() for value in self.tail.learner.parameters)
        console.say(
            f"phase {number + 1}, {self.plan.name}: {count:,} parameters train from "
            f"{self.plan.layer}, "
            f"{'at most ' if self.phase.patience else ''}{counted(self.phase.epochs, 'epoch')}, "
            f"batch {self.phase.batch_size}, {'compiled' if self.plan.compiled else 'eager'}"
        )
        before = [int(row.epoch) for row in state.history if row.phase < number]
        self.earlier = max(before, default=0)
        with timed(state, "features"):
            self.feed = open_feed(run, self.plan, "train", self.earlier)
            self.val_feed = open_feed(run, self.plan, "validation", self.earlier)
        self.labels = torch.from_numpy(run.train.labels).to(machine.torch_device)

    @property
    def plan(self) -> PhasePlan:
        """The plan of this phase."""
        return self.run.plan[self.number]

    @property
    def phase(self) -> Phase:
        """The recipe's phase, adapted to the data."""
        return self.plan.phase

    def _new_tail(self) -> Tail:
        run = self.run
        return Tail(run.network, self.plan, run.machine, run.world)

    def do(self, keeper: Keeper) -> None:
        """Train from the state's epoch and step to the end of the phase."""
        state = self.run.state
        training_mode(self.run.network, self.phase.batch_norm, self.phase.bn_momentum)
        if not (state.epoch or state.round or state.step):
            with timed(state, self.plan.name):
                self._fit_memory()
        if self.plan.compiled:
            with timed(state, "compile"):
                self.tail.warm_up(self._some())
        with keeper.stopping_between_steps():
            while state.phase == self.number:
                number = self.earlier + state.epoch
                if not self.feed.ready(number):
                    with timed(state, "features"), keeper.stopping_at_once():
                        self.feed.epoch(number)
                trained, spent = self._train(keeper, self.feed.epoch(number))
                with timed(state, self.plan.name):
                    val, logits = self._validate(keeper)
                self._end_round(trained, val, logits, spent)
                ended = state.phase != self.number
                if keeper.due or ended or not self.feed.ready(self.earlier + state.epoch):
                    self._update()
                    keeper.save()

    def _some(self) -> torch.Tensor:
        """Return a batch of the phase's first epoch, or this rank's share of it."""
        positions = self.run.world.everybody.own(np.arange(self.phase.batch_size))
        return self.feed.epoch(self.earlier)(positions)

    def _fit_memory(self) -> None:
        """Halve the batch until a step fits every rank's memory. Raises RunError if none does."""
        run, planned = self.run, self.plan
        whole = planned.phase.batch_size
        while not all(run.world.everybody.gather(self.tail.fits(self._some))):
            batch = self.phase.batch_size // 2
            if batch < LEAST_BATCH * run.world.size:
                raise RunError(
                    f"the GPU's memory does not hold a step on {self.phase.batch_size} images of "
                    f"{run.recipe.size} px; choose a smaller --size or another --backbone"
                )
            run.plan[self.number] = planned.with_batch(batch)
            self.tail = self._new_tail()
        if self.phase.batch_size < whole:
            run.state.batches[self.number] = self.phase.batch_size
            console.say(
                f"batch {self.phase.batch_size}, learning rate {self.phase.lr:.2g}: the GPU's "
                f"memory does not hold a step on {whole} images"
            )

    def _train(self, keeper: Keeper, batch: Batch) -> tuple[Metrics, float]:
        """Do the rest of a round; return the metrics and seconds of its epoch so far."""
        run, state = self.run, self.run.state
        total = self.earlier + state.epoch
        seed = run.recipe.seed
        whole = batches(len(run.train), self.phase, [seed, total, 0x0BDE], run.world.size)
        order = whole[: len(whole) * (state.round + 1) // self.plan.rounds]
        before, start = state.spent, time.perf_counter()

        def between(done: int, totals: torch.Tensor) -> None:
            state.step, state.spent = done, before + time.perf_counter() - start
            if done == len(order):
                state.totals = run.world.total(totals).tolist()
            elif keeper.due:
                # The leader's share stands for all ranks: only a line of the log depends on it, and
                # only if the epoch is resumed.
                state.totals = (totals * run.world.size).tolist()
            if keeper.due:
                self._update()
                keeper.save()

        epoch = Epoch(
            batch=batch,
            labels=self.labels,
            loss_weights=run.loss_weights,
            order=order,
            first_step=state.epoch * len(whole),
            steps=self.phase.epochs * len(whole),
            seed=seed,
        )
        begun = state.totals if run.world.leads else None
        with console.progress(f"epoch {total + 1}", sum(map(len, order))) as advance:
            trained = train_epoch(self.tail.learner, epoch, advance, begun, state.step, between)
        return trained, state.spent

    def _validate(self, keeper: Keeper) -> tuple[Metrics, torch.Tensor]:
        """Return metrics and logits of the validation images."""
        run, network = self.run, self.tail.evaluated
        run.world.align(run.network.net)
        run.world.align(network.net)
        frozen = frozen_function(network, self.plan.split, None, run.machine, briefly=True)
        read = self.val_feed.epoch(0)
        with console.progress("validating", len(run.val)) as advance:
            val, logits = evaluate(
                lambda positions: spread(run.machine, frozen, read(positions)),
                run.val.labels,
                EVALUATION_BATCH,
                advance,
                run.world,
                *keeper.logits("validation", self._update),
            )
        return val, torch.from_numpy(logits)

    def _end_round(
        self, trained: Metrics, val: Metrics, logits: torch.Tensor, spent: float
    ) -> None:
        """Record a round, and move the state on to the next round, epoch or phase."""
        run, state = self.run, self.run.state
        patience, whole = self.phase.patience, state.round + 1 == self.plan.rounds
        waited = self._note_best(val, logits) if patience else 0
        stop = whole and 0 < patience <= waited
        last = stop or (whole and state.epoch + 1 == self.phase.epochs)
        self._record(trained, val, spent, last)
        state.logits = {}
        if not whole:
            state.round += 1
            return
        state.seconds[self.plan.name] = state.seconds.get(self.plan.name, 0.0) + spent
        state.round, state.step, state.totals, state.spent = 0, 0, None, 0.0
        if not last:
            state.epoch += 1
            return
        best = state.best
        tensors = best["network"] if best else self.tail.evaluated.net.state_dict()
        logits = best["logits"] if best else logits
        run.network.net.load_state_dict(tensors)
        position = best["row"] if best else len(state.history) - 1
        row = state.history[position] = replace(state.history[position], kept=True)
        if row is not state.history[-1]:
            console.say(
                f"kept epoch {row.epoch:g}, the most accurate on validation: "
                f"{100 * row.val_accuracy:.2f} %, loss {row.val_loss:.3f}"
                + (f"; stopped after {counted(patience, 'epoch')} without improvement" * stop)
            )
        if self.number == 0:
            state.head = Head(logits)
        elif patience:
            self._keep_better(logits, position)
        if run.world.leads:
            write_log(run.folder, state.history)
        state.phase, state.epoch, state.best = self.number + 1, 0, None

    def _keep_better(self, logits: torch.Tensor, position: int) -> None:
        """Go back to the head alone unless fine-tuning is better.

        logits: of the fine-tuned network. position: of its row in the history.
        """
        run, head = self.run, self.run.state.head
        assert head is not None
        evidence = weigh(head.logits, logits, torch.from_numpy(run.val.labels))
        console.say(evidence.sentence(run.recipe.validate_on))
        if not evidence.better:
            assert head.tensors is not None
            run.network.net.load_state_dict(head.tensors, strict=False)
            run.state.kept = NAMES[0]
            run.state.history[position] = replace(run.state.history[position], kept=False)

    def _update(self) -> None:
        """Update the weights in the state."""
        state = self.run.state
        under_way = state.phase == self.number
        learner = self.tail.learner
        state.network = self.run.network.net.state_dict()
        averaged = under_way and learner.ema is not None
        state.averaged = self.tail.averaged.net.state_dict() if averaged else None
        state.optimizer = learner.optimizer.state_dict() if under_way else None

    def _note_best(self, val: Metrics, logits: torch.Tensor) -> int:
        """Keep the best network so far, by accuracy, then loss; return its age in epochs."""
        state, best = self.run.state, self.run.state.best
        if best is None or (val.accuracy, -val.loss) > (best["accuracy"], -best["loss"]):
            weights = self.tail.evaluated.net.state_dict()
            state.best = {
                "accuracy": val.accuracy,
                "loss": val.loss,
                "epoch": state.epoch,
                "row": len(state.history),
                "logits": logits,
                "network": {name: value.clone() for name, value in weights.items()},
            }
            return 0
        return state.epoch - int(best["epoch"])

    def _record(self, trained: Metrics, val: Metrics, spent: float, last: bool) -> None:
        run, state = self.run, self.run.state
        done = (state.round + 1) / self.plan.rounds  # of the epoch
        total = self.earlier + state.epoch + (1 if done == 1 else round(done, 3))
        row = Validation(
            epoch=total,
            phase=self.number,
            train_loss=round(trained.loss, 5),
            train_accuracy=round(trained.accuracy, 5),
            val_loss=round(val.loss, 5),
            val_accuracy=round(val.accuracy, 5),
            seconds=round(spent, 2),
            images_per_second=round(trained.images / spent, 1),
            elapsed=round(learning_seconds(state) + spent, 2),
        )
        run.record(row)
        epochs = self.phase.epochs
        every = max(1, round((self.earlier + epochs) / LINES))
        if not last and every > 1 and total % every:
            return  # log.jsonl has every line; a page of them is enough to read
        left = 0.0 if last else (epochs - state.epoch - done) * spent / done  # seconds
        remaining = f", {left / 60:.1f} min left in this phase" if left > 60 else ""
        console.say(
            f"epoch {total:4g} {self.plan.name:9s} train {100 * trained.accuracy:6.2f} % "
            f"loss {trained.loss:.3f}   {run.recipe.validate_on} {100 * val.accuracy:6.2f} % "
            f"loss {val.loss:.3f}   {row.images_per_second:,.0f} images/s{remaining}"
        )


def learning_seconds(state: RunState) -> float:
    """Return the seconds of features and both phases so far, without the epoch under way."""
    return sum(state.seconds.get(name, 0.0) for name in LEARNING)


def open_feed(run: Run, plan: PhasePlan, part: str, first: int) -> Feed:
    """Return the input of a phase's layers for the training or validation images.

    part: 'train' or 'validation'. first: the epoch of the run that shows view 0.
    """
    train = part == "train"
    key = f"{plan.name}, {part}"
    feed = make_feed(
        run.origin(run.train if train else run.val),
        plan.cached_splits if train else plan.cached_val_splits,
        plan.phase.views if train else 1,
        run.recipe.seed,
        None if run.options.allow_different else run.state.cached.get(key),
        run.world,
        first,
    )
    run.state.cached[key] = feed.cached
    return feed
