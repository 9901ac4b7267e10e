"""The pieces of a run, timed on a sample of its images."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.memory import PeakMemory, available_memory, used_memory
from ..data.store import ImageStore
from ..data.views import undrawn_views
from ..model.thawing import training_mode
from ..recipe import Phase
from ..training.baseline import STRENGTHS, regression
from ..training.context import Run
from ..training.loop import Epoch, evaluate, train_epoch
from ..training.phase import EVALUATION_BATCH
from ..training.plan import PhasePlan
from ..training.tail import Tail
from ..training.trunk import cache
from ..training.trunk.cache import FeatureStore
from ..training.trunk.feeds import Batch, LiveFeed
from ..training.trunk.runtime import frozen_function, spread
from .estimate import Pass, PhaseSpeed

WARM = 16  # images that go through first, so that what happens once is not counted
STEP_SECONDS = 5.0  # an optimiser step that takes longer is timed on a smaller batch
TIMED_SECONDS = 2.0  # steps are repeated for about so long
MOST_STEPS = 20
REGRESSION_ROWS = 2000  # images that logistic regression is timed on
NOISE = 2.0  # standard deviations; with 0.1 a fit on CIFAR-100 seemed to take three times as long
SPARE_MEMORY = 0.7  # share of the available memory that a batch may take while measuring


class Probe:
    """The speeds of a run, measured; its stores and feeds are the run's own.

    unseen: bytes that the run will take beyond what measuring took, where a batch was reduced.
    """

    def __init__(self, run: Run, sample: ImageStore, scratch: Path) -> None:
        self.run = run
        self.sample = sample
        self.scratch = scratch
        self.unseen = 0
        self._stores: dict[tuple[int, bool], FeatureStore] = {}
        self._speeds: dict[tuple[int, bool], tuple[float, float]] = {}  # once, and per image

    def passing(self, each: Pass) -> float:
        """See Speeds."""
        self._built(each.split, each.drawn)
        once, image = self._speeds[each.split, each.drawn]
        return once + each.images * image

    def phase(self, plan: PhasePlan, live: bool, val_live: bool) -> PhaseSpeed:
        """See Speeds; it thaws the layers of the phase as the run does."""
        network, machine, phase = self.run.network, self.run.machine, plan.phase
        tail = Tail(network, replace(plan, compiled=False), machine)
        training_mode(network, phase.batch_norm, phase.bn_momentum)
        step = self._step(tail, self._read(plan.split, phase.views, live), phase)
        begun = time.perf_counter()
        frozen = frozen_function(tail.evaluated, plan.split, None, machine, briefly=True)
        between = time.perf_counter() - begun
        read = self._read(plan.split, 1, val_live)
        validated = self._evaluated(lambda rows: spread(machine, frozen, read(rows)))
        return PhaseSpeed(step, validated, between)

    def test(self) -> float:
        """See Speeds."""
        run = self.run
        exact = run.exact_origin(self.sample)
        return self._evaluated(LiveFeed(exact, len(run.network.stages), 1, 0).epoch(0))

    def fit(self, rows: int) -> float:
        """See Speeds."""
        pooled = self._built(len(self.run.network.stages) - 1, False)
        values = pooled.at(np.arange(len(self.sample)), torch.device("cpu"))  # (n, features)
        timed = min(rows, REGRESSION_ROWS)
        taken = np.arange(timed) % len(self.sample)
        # Few images stand for many: noise makes their copies as hard to tell apart as real ones.
        known = values.float().numpy()
        noise = np.random.default_rng(0).normal(0, NOISE, (timed, known.shape[1]))
        table = known[taken] + (noise * known.std(axis=0)).astype(np.float32)
        begun = time.perf_counter()
        # So many times the weight on every row is what so many times the rows would be.
        regression(table, self.sample.labels[taken], STRENGTHS[1] * rows / timed)
        return (time.perf_counter() - begun) * rows / timed

    def _built(self, split: int, drawn: bool) -> FeatureStore:
        """Return the sample's features at a split for a view of one kind, timed once."""
        if (split, drawn) not in self._stores:
            view = undrawn_views(self.run.origin(self.sample).augment.flip) if drawn else 0
            few = self.sample.subset(np.arange(min(WARM, len(self.sample))))
            self._build(few, split, view, f"warm {split} {view}")
            _, small = self._build(few, split, view, f"few {split} {view}")
            folder, large = self._build(self.sample, split, view, f"{split} {view}")
            image = max(0.0, large - small) / max(1, len(self.sample) - len(few))
            if not image:  # no more than a few, or too fast to tell
                image = large / len(self.sample)
            once = max(0.0, small - len(few) * image)
            self._speeds[split, drawn] = (once, image)
            self._stores[split, drawn] = cache.load(folder)
        return self._stores[split, drawn]

    def _build(self, images: ImageStore, split: int, view: int, name: str) -> tuple[Path, float]:
        """Return the folder of some images' features, and the seconds that making it took."""
        origin, folder = self.run.origin(images), self.scratch / name
        begun = time.perf_counter()
        cache.build(origin, view, {split: folder}, _silent)
        return folder, time.perf_counter() - begun

    def _read(self, split: int, views: int, live: bool) -> Batch:
        if live:
            return LiveFeed(self.run.origin(self.sample), split, views, 0).epoch(0)
        known = next((one for (at, _), one in self._stores.items() if at == split), None)
        store, device = known or self._built(split, False), self.run.machine.torch_device
        return lambda positions: store.at(positions, device)

    def _step(self, tail: Tail, read: Batch, phase: Phase) -> float:
        """Return the seconds of one step, at a smaller batch if the whole one asks too much."""
        batch = phase.batch_size
        small = min(batch, WARM)
        self._steps(tail, read, phase, small, 1)
        before = used_memory()
        with PeakMemory() as peak:
            guess = self._steps(tail, read, phase, small, 1) * batch / small
        free = available_memory()
        needed = (peak.bytes - before) * batch / small
        if guess > STEP_SECONDS:
            batch = max(small, int(batch * STEP_SECONDS / guess))
        if free is not None and needed > SPARE_MEMORY * free:
            batch = max(small, int(batch * SPARE_MEMORY * free / needed))
        before = used_memory()
        with PeakMemory() as peak:
            first = self._steps(tail, read, phase, batch, 1)
        again = min(MOST_STEPS, max(1, round(TIMED_SECONDS / first)))
        step = self._steps(tail, read, phase, batch, again)
        scale = phase.batch_size / batch
        self.unseen = max(self.unseen, int((peak.bytes - before) * (scale - 1)))
        return step * scale

    def _steps(self, tail: Tail, read: Batch, phase: Phase, batch: int, steps: int) -> float:
        """Train on random batches of the sample and return the seconds per step."""
        machine, labels = self.run.machine, torch.from_numpy(self.sample.labels)
        rng = np.random.default_rng(0)
        order = [rng.integers(len(self.sample), size=batch) for _ in range(steps)]
        epoch = Epoch(
            batch=read,
            labels=labels.to(machine.torch_device),
            class_weights=None,
            order=order,
            first_step=0,
            steps=1_000_000,  # the learning rate stays at the bottom of its rise
            seed=0,
        )
        begun = time.perf_counter()
        train_epoch(tail.learner, epoch, _silent)
        return (time.perf_counter() - begun) / steps

    def _evaluated(self, logits_of: Batch) -> float:
        labels: NDArray[np.int64] = self.sample.labels
        begun = time.perf_counter()
        evaluate(logits_of, labels, EVALUATION_BATCH, _silent)
        return (time.perf_counter() - begun) / len(labels)


def _silent(_done: int) -> None:
    pass
