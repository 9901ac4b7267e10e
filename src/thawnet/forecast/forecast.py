"""How long a run would take here and how much memory: its pieces timed on a sample, multiplied.

The pieces are those of the run: its stores, feeds, passes, steps and evaluations. Only compiling
is not tried out; what it costs and gains stands in machine.py.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.files import cache_folder, clear_disk_errors
from ..core.memory import PeakMemory, available_cores, available_memory, used_memory
from ..data import store
from ..data.items import Items, Source, spread_over
from ..data.splits import TrainTest
from ..data.store import ImageStore
from ..data.views import undrawn_views
from ..recipe import Phase, Recipe, TrainOptions
from ..training.baseline import STRENGTHS, regression
from ..training.call import check_call, chosen
from ..training.checkpoint import RunState
from ..training.context import Run
from ..training.loop import Epoch, evaluate, train_epoch
from ..training.machine import COMPILE_SECONDS, COMPILE_SPEEDUP, return_freed_memory
from ..training.phase import EVALUATION_BATCH
from ..training.plan import make_plan
from ..training.ranks import ALONE
from ..training.setup import build_network, divide, fit_input
from ..training.tail import Tail
from ..training.trunk import cache
from ..training.trunk.cache import FeatureStore, Target
from ..training.trunk.feeds import Batch, CachedFeed, Feed, LiveFeed
from ..training.trunk.runtime import frozen_function, spread
from .workload import Caches, PhaseWork, Work, count

SAMPLE = 256  # images measured on
WARM = 16  # images that go through first, so that what happens once is not counted
STEP_SECONDS = 5.0  # an optimiser step that takes longer is timed on a smaller batch
TIMED_SECONDS = 2.0  # steps are repeated for about so long
MOST_STEPS = 20
REGRESSION_ROWS = 2000  # images that logistic regression is timed on
NOISE = 2.0  # standard deviations; with 0.1 a fit on CIFAR-100 seemed to take three times as long
SPARE_MEMORY = 0.7  # share of the available memory that a batch may take while measuring
ENDING = 3.0  # seconds for what is not timed: bundle, plot, predictions, ending the process


@dataclass(frozen=True)
class PassSpeed:
    """Seconds that a pass takes whatever its size, and those of each image."""

    once: float
    image: float


@dataclass(frozen=True)
class PhaseSpeed:
    """Seconds of one optimiser step, of validating one image, and of what an epoch does besides."""

    step: float
    validated: float
    epoch: float


@dataclass(frozen=True)
class Speeds:
    """Seconds: to start, per image decoded, of passes (split, drawn), and so on.

    tested: per image through the whole network in float32. fit: one logistic regression.
    """

    start: float
    decoded: float
    passes: Mapping[tuple[int, bool], PassSpeed]
    phases: tuple[PhaseSpeed, ...]
    tested: float
    fit: float


@dataclass(frozen=True)
class Forecast:
    """What a run is expected to take.

    images: of each part that is read. epochs: of both phases; patience: it may stop earlier.
    seconds: per stage. memory: bytes of anonymous memory at the peak, all processes. written: bytes
    of new stores and caches. cached: whether the frozen layers' outputs fit the disk budget.
    """

    recipe: str
    backbone: str
    size: int
    weights: str
    images: dict[str, int]
    train_from: str
    epochs: tuple[int, ...]
    patience: bool
    compiled: bool
    cached: bool
    seconds: dict[str, float]
    memory: int
    written: int

    @property
    def total(self) -> float:
        """Seconds from call to result."""
        return sum(self.seconds.values())


def seconds_of(work: Work, speeds: Speeds) -> dict[str, float]:
    """Return the seconds of each stage of a run."""
    passes = [(each.images, speeds.passes[each.split, each.drawn]) for each in work.passes]
    stages = {
        "start": speeds.start,
        "data": work.decoded * speeds.decoded,
        "features": sum(speed.once + images * speed.image for images, speed in passes),
    }
    for phase, speed in zip(work.phases, speeds.phases, strict=True):
        plan = phase.plan
        step = speed.step / COMPILE_SPEEDUP if plan.compiled else speed.step
        epoch = plan.steps * step + phase.validated * speed.validated + speed.epoch
        stages[plan.name] = plan.phase.epochs * epoch + (COMPILE_SECONDS if plan.compiled else 0)
    stages["test"] = work.tested * speeds.tested
    stages["baseline"] = work.fits * speeds.fit
    stages["end"] = ENDING
    return stages


def forecast(
    options: TrainOptions, source: Source, lists: TrainTest, short_side: int, opened: float
) -> Forecast:
    """Predict `train` with these options on a source, by measuring for some seconds.

    lists: the source arranged. short_side: the data's typical one. opened: seconds that starting
    and opening the source took. Raises the ThawnetError that the run would raise.
    """
    gc.collect()
    return_freed_memory()
    began = time.perf_counter()
    recipe, machine = chosen(options)
    check_call(recipe, options)
    recipe, weights, spec = fit_input(recipe, short_side)
    network = build_network(recipe, source, weights, machine)
    opened += time.perf_counter() - began
    # The cache's disk is the one that the run will write most to.
    with clear_disk_errors(cache_folder()):
        cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".doctor.", dir=cache_folder(), ignore_cleanup_errors=True
    ) as scratch:
        with PeakMemory() as peak:
            sample, decoded = _decode_sample(lists, spec.side, options, Path(scratch))
            listed = _listed(recipe, options, lists)
            images = _images(recipe, listed)
            run = Run(
                folder=Path(scratch),
                options=options,
                recipe=recipe,
                machine=machine,
                world=ALONE,
                source=source,
                lists=lists,
                spec=spec,
                weights=weights,
                network=network,
                train=sample,
                val=sample,
                plan=make_plan(recipe, network, machine, images["train"]),
                state=RunState({}, {}, {}, {}, 1, "", ""),
            )
            work = _count(run, listed, images, sample)
            probe = _Probe(run, sample, work, Path(scratch))
            speeds = Speeds(
                start=opened,
                decoded=decoded,
                passes=probe.passes(),
                phases=tuple(probe.phase(number) for number in range(len(work.phases))),
                tested=probe.test(),
                fit=probe.fit(),
            )
        # What was freed is used again in the end, for the features of the baseline.
        gc.collect()
        return_freed_memory()
        settled = used_memory()
        memory = max(peak.bytes + probe.unseen, settled + probe.baseline_bytes())
    return Forecast(
        recipe=recipe.name,
        backbone=recipe.backbone,
        size=recipe.size,
        weights=f"{recipe.weights}, trained at {weights.size} px, licence {weights.licence}",
        images=images,
        train_from=run.plan[-1].layer,
        epochs=tuple(phase.phase.epochs for phase in run.plan),
        patience=any(phase.phase.patience for phase in run.plan),
        compiled=any(phase.compiled for phase in run.plan),
        cached=not any(
            work.live and work.plan.split and work.plan.phase.views for work in work.phases
        ),
        seconds=seconds_of(work, speeds),
        memory=memory,
        written=work.written,
    )


def _decode_sample(
    lists: TrainTest, side: int, options: TrainOptions, scratch: Path
) -> tuple[ImageStore, float]:
    """Return a store of some training images spread over the list, and the seconds per image."""
    items = lists.train.subset(spread_over(len(lists.train), SAMPLE))
    workers = options.workers or available_cores()
    begun = time.perf_counter()
    store.build(scratch / "images", items, side, _silent, workers)
    spent = time.perf_counter() - begun
    images = store.load(scratch / "images", items)
    if not len(images):
        name, why = images.broken[0]
        raise DataError(f"no image can be read; the first that failed: '{name}' ({why})")
    return images, spent / len(items)


def _listed(recipe: Recipe, options: TrainOptions, lists: TrainTest) -> dict[str, Items | None]:
    """Return the images of the parts that a run opens; a test part that validates is 'val'."""
    test = None if options.no_test or lists.test is None else lists.test()
    on_test = recipe.validate_on == "test"
    return {
        "train": lists.train,
        "val": test if on_test else lists.val,
        "test": None if on_test else test,
    }


def _images(recipe: Recipe, listed: Mapping[str, Items | None]) -> dict[str, int]:
    """Return how many images train, validate and test."""
    assert listed["train"] is not None
    train, val = divide(listed["train"], listed["val"], recipe.split_seed)
    images = {"train": len(train)}
    images["test" if recipe.validate_on == "test" else "val"] = len(val)
    if listed["test"] is not None:
        images["test"] = len(listed["test"])
    return images


def _count(
    run: Run, listed: Mapping[str, Items | None], images: Mapping[str, int], sample: ImageStore
) -> Work:
    """Count the work of the run, with the caches that are there already."""
    recipe, on_test = run.recipe, run.recipe.validate_on == "test"
    stores = {part: _stored(items, run.spec.side) for part, items in listed.items()}
    missing = sum(
        len(items) for part, items in listed.items() if items is not None and not stores[part]
    )
    there: dict[str, ImageStore | None] = {"test": stores["val"] if on_test else stores["test"]}
    if stores["train"] and (listed["val"] is None or stores["val"]):
        there["train"], there["val"] = divide(stores["train"], stores["val"], recipe.split_seed)
    last = len(run.network.stages) - 1
    splits = {last, *(phase.split for phase in run.plan)} - {0}
    origin = run.origin(sample)
    size = run.machine.torch_dtype.itemsize

    def found(part: str, view: int, split: int) -> bool:
        own = there.get(part)
        return own is not None and run.origin(own).folder(view, split).is_dir()

    caches = Caches(
        found=found,
        sizes={at: size * math.prod(cache.shape_at(run.network, at)) for at in splits},
        flip=origin.augment.flip,
        budget=cache.disk_budget,
    )
    store_bytes = missing * len(sample.pixels) // len(sample)
    return count(run.plan, last, images, caches, missing, store_bytes)


def _stored(items: Items | None, side: int) -> ImageStore | None:
    """Return the store of these images if the cache has it."""
    if items is None or not (folder := store.store_folder(items, side)).is_dir():
        return None
    return store.load(folder, items)


class _Probe:
    """Times the pieces of a run on the sample.

    unseen: bytes that the run will take beyond what measuring took, where a batch was reduced.
    """

    def __init__(self, run: Run, sample: ImageStore, work: Work, scratch: Path) -> None:
        self.run = run
        self.sample = sample
        self.work = work
        self.scratch = scratch
        self.unseen = 0
        self._stores: dict[tuple[int, bool], FeatureStore] = {}
        self._speeds: dict[tuple[int, bool], PassSpeed] = {}

    def passes(self) -> dict[tuple[int, bool], PassSpeed]:
        """Return the speed of every kind of pass that the run makes."""
        for each in self.work.passes:
            self._built(each.split, each.drawn)
        return dict(self._speeds)

    def phase(self, number: int) -> PhaseSpeed:
        """Return the speeds of a phase, eager, thawing its layers as the run does."""
        run, work = self.run, self.work.phases[number]
        network, machine, phase = run.network, run.machine, work.plan.phase
        tail = Tail(network, work.plan, machine)
        network.training_mode(phase.batch_norm, phase.bn_momentum)
        step = self._step(tail, self._feed(work), phase)
        begun = time.perf_counter()
        frozen = frozen_function(tail.kept, work.plan.split, None, machine, briefly=True)
        between = time.perf_counter() - begun
        read = self._val_feed(work).epoch(0)
        validated = self._evaluated(lambda rows: spread(machine, frozen, read(rows)))
        return PhaseSpeed(step, validated, between)

    def test(self) -> float:
        """Return the seconds per image of the test: the whole network in float32."""
        run = self.run
        origin = run.origin(self.sample)
        exact = replace(origin, machine=replace(run.machine, dtype="float32"))
        return self._evaluated(LiveFeed(exact, len(run.network.stages), 1, 0).epoch(0))

    def fit(self) -> float:
        """Return the seconds of one logistic regression on as many images as the run takes."""
        pooled = self._built(len(self.run.network.stages) - 1, False)
        values = pooled.at(np.arange(len(self.sample)), torch.device("cpu"))  # (n, features)
        rows = min(self.work.rows, REGRESSION_ROWS)
        taken = np.arange(rows) % len(self.sample)
        # Few images stand for many: noise makes their copies as hard to tell apart as real ones.
        known = values.float().numpy()
        noise = np.random.default_rng(0).normal(0, NOISE, (rows, known.shape[1]))
        table = known[taken] + (noise * known.std(axis=0)).astype(np.float32)
        begun = time.perf_counter()
        # So many times the weight on every row is what so many times the rows would be.
        regression(table, self.sample.labels[taken], STRENGTHS[1] * self.work.rows / rows)
        return (time.perf_counter() - begun) * self.work.rows / rows

    def baseline_bytes(self) -> int:
        """Return the bytes that the baseline's features take: in parts, as a whole, and scaled."""
        return 4 * self.run.network.head.in_features * (3 * self.work.rows + 2 * self.work.tested)

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
            self._speeds[split, drawn] = PassSpeed(once, image)
            self._stores[split, drawn] = cache.load(folder)
        return self._stores[split, drawn]

    def _build(self, images: ImageStore, split: int, view: int, name: str) -> tuple[Path, float]:
        """Return the folder of some images' features, and the seconds that making it took."""
        origin, folder = self.run.origin(images), self.scratch / name
        begun = time.perf_counter()
        shape = cache.shape_at(origin.network, split)
        cache.build(origin, view, [Target(split, folder, shape)], _silent)
        return folder, time.perf_counter() - begun

    def _feed(self, work: PhaseWork) -> Feed:
        plan, views = work.plan, work.plan.phase.views
        if work.live:
            return LiveFeed(self.run.origin(self.sample), plan.split, views, 0)
        return self._cached(plan.split, views)

    def _val_feed(self, work: PhaseWork) -> Feed:
        split = work.plan.split
        if work.val_live:
            return LiveFeed(self.run.origin(self.sample), split, 1, 0)
        return self._cached(split, 1)

    def _cached(self, split: int, views: int) -> Feed:
        known = next((one for (at, _), one in self._stores.items() if at == split), None)
        cache = known or self._built(split, False)
        device = self.run.machine.torch_device
        return CachedFeed(views, lambda _: cache, lambda _: True, device)

    def _step(self, tail: Tail, feed: Feed, phase: Phase) -> float:
        """Return the seconds of one step, at a smaller batch if the whole one asks too much."""
        batch = phase.batch_size
        small = min(batch, WARM)
        self._steps(tail, feed, phase, small, 1)
        before = used_memory()
        with PeakMemory() as peak:
            guess = self._steps(tail, feed, phase, small, 1) * batch / small
        free = available_memory()
        needed = (peak.bytes - before) * batch / small
        if guess > STEP_SECONDS:
            batch = max(small, int(batch * STEP_SECONDS / guess))
        if free is not None and needed > SPARE_MEMORY * free:
            batch = max(small, int(batch * SPARE_MEMORY * free / needed))
        before = used_memory()
        with PeakMemory() as peak:
            first = self._steps(tail, feed, phase, batch, 1)
        again = min(MOST_STEPS, max(1, round(TIMED_SECONDS / first)))
        step = self._steps(tail, feed, phase, batch, again)
        scale = phase.batch_size / batch
        self.unseen = max(self.unseen, int((peak.bytes - before) * (scale - 1)))
        return step * scale

    def _steps(self, tail: Tail, feed: Feed, phase: Phase, batch: int, steps: int) -> float:
        """Train on random batches of the sample and return the seconds per step."""
        machine, labels = self.run.machine, torch.from_numpy(self.sample.labels)
        rng = np.random.default_rng(0)
        order = [rng.integers(len(self.sample), size=batch) for _ in range(steps)]
        epoch = Epoch(
            batch=feed.epoch(0),
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
