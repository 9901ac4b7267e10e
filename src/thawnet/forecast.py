"""Estimates of a run's time, memory and disk: parts of its plan, timed on a sample and scaled.

Compilation is not timed; training/machine.py has its measured cost and speed-up.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .core.errors import DataError
from .core.files import cache_folder, clear_disk_errors
from .core.memory import (
    PeakMemory,
    available_cores,
    available_memory,
    return_freed_memory,
    used_memory,
)
from .data import store
from .data.items import Items, Source, spread_over
from .data.splits import Part, TrainTest, divide
from .data.store import ImageStore, Typical
from .image.preprocess import Reduction
from .model.thawing import training_mode
from .model.weights import load_weights
from .recipe import Phase, Recipe, TrainOptions
from .training.baseline import MOST_IMAGES
from .training.call import check_call, chosen
from .training.context import origin_of
from .training.loop import Epoch, train_epoch
from .training.machine import COMPILE_SECONDS, COMPILE_SPEEDUP
from .training.plan import NAMES, PhasePlan, Plan, is_small, make_plan, with_layer
from .training.pretrained import Load, build_network, fit_input
from .training.regression import Problem, cross_validate, validate
from .training.tail import Tail
from .training.trunk import cache
from .training.trunk.cache import Origin
from .training.trunk.feeds import Batch, LiveFeed
from .training.trunk.runtime import frozen_function, spread

SAMPLE = 256  # training images that are timed
FEW = 16  # images of a warm-up pass, which keeps one-off costs out of the timing
STEP_SECONDS = 2.0  # slower steps are timed on a smaller batch, faster ones repeated
SPARE_MEMORY = 0.7  # share of the available memory that a step may take while measuring
REGRESSION_ROWS = 2000  # images that logistic regression is timed on
ENDING = 3.0  # seconds for what is not timed: bundle, plot, predictions, process exit


@dataclass(frozen=True)
class Forecast:
    """The expected cost of a run."""

    recipe: str
    backbone: str
    size: int
    """Side of the network's input in pixels."""
    weights: str
    images: dict[str, int]
    """Number of images in each part that is read."""
    train_from: str
    """The first layer that fine-tuning trains."""
    epochs: tuple[int, ...]
    """Epochs of each phase."""
    solved: bool
    """Whether the head is solved to its optimum, without epochs."""
    patience: bool
    """Whether a phase may stop early."""
    compiled: bool
    cached: bool
    """Whether the frozen layers' outputs fit the disk budget."""
    seconds: dict[str, float]
    """Seconds of each stage, by name."""
    memory: int
    """Peak anonymous memory of all processes, in bytes."""
    written: int
    """Bytes of new stores and caches."""

    @property
    def total(self) -> float:
        """Seconds from call to result."""
        return sum(self.seconds.values())

    @property
    def head_alone(self) -> float:
        """Seconds without fine-tuning, as with `--epochs N 0`."""
        return self.total - self.seconds.get(NAMES[1], 0.0)


def forecast(
    options: TrainOptions,
    source: Source,
    lists: TrainTest,
    typical: Typical,
    opened: float,
    load: Load = load_weights,
) -> Forecast:
    """Estimate the cost of `train` with these options on a source, by timing parts of the run.

    lists: the source's images by part. typical: the typical training image. opened: seconds taken
    to start and to open the source. load: loads the weights. The timing takes some seconds. Raises
    the ThawnetError that the run would raise.
    """
    gc.collect()
    return_freed_memory()
    began = time.perf_counter()
    recipe, machine = chosen(options)
    check_call(recipe, options)
    recipe, weights, spec = fit_input(recipe, source, typical, load)
    network = build_network(recipe, source, weights, machine)
    small = is_small(recipe, network, spec, len(lists.train), lists.folded)
    recipe = with_layer(recipe, small)
    opened += time.perf_counter() - began
    items = _read(recipe, options, lists)
    parts = {part: len(images) for part, images in _divided(recipe, lists, items).items()}
    plan = make_plan(recipe, network, machine, parts["train"], folded=lists.folded, small=small)
    # The run writes most of its data to the cache's disk.
    with clear_disk_errors(cache_folder()):
        cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".doctor.", dir=cache_folder(), ignore_cleanup_errors=True
    ) as scratch:
        with PeakMemory() as peak:
            sample, decoded = _decode_sample(lists, spec.reduction, options, Path(scratch))
            origin = origin_of(network, recipe, weights, spec, machine, sample)
            stores = {
                part: store.load(folder, images)
                for part, images in items.items()
                if (folder := store.store_folder(images, spec.reduction)).is_dir()
            }
            stored = (
                _divided(recipe, lists, stores) if items.keys() - {"test"} <= stores.keys() else {}
            )
            features, fits, size = _missing_features(plan, origin, parts, stored)
            probe = Probe(origin)
            folds = recipe.folds if lists.folded else 0
            stages = estimate(plan, parts, features, fits, folds, probe)
        # The run reuses this freed memory at its end, for the features of the baseline.
        gc.collect()
        return_freed_memory()
        baseline = used_memory() + _baseline_bytes(parts, network.head.in_features)
    missing = sum(len(images) for part, images in items.items() if part not in stores)
    return Forecast(
        recipe=recipe.name,
        backbone=recipe.backbone,
        size=recipe.size,
        weights=f"{recipe.weights}, trained at {weights.size} px, licence {weights.licence}",
        images=parts,
        train_from=plan[-1].layer,
        epochs=tuple(phase.phase.epochs for phase in plan),
        solved=plan[0].solved,
        patience=any(phase.phase.patience for phase in plan),
        compiled=any(phase.compiled for phase in plan),
        cached=fits,
        seconds={"start": opened, "data": missing * decoded, **stages, "end": ENDING},
        memory=max(peak.bytes + probe.unseen, baseline),
        written=size + missing * len(sample.pixels) // len(sample),
    )


def _baseline_bytes(parts: Mapping[str, int], width: int) -> int:
    """Return the bytes that the baseline's features take: in pieces, joined, and scaled."""
    rows = min(parts["train"], MOST_IMAGES)
    return 4 * width * (3 * rows + 2 * (sum(parts.values()) - parts["train"]))


def _read(recipe: Recipe, options: TrainOptions, lists: TrainTest) -> dict[str, Items]:
    """Return the images of the parts that a run opens."""
    parts = {"train": lists.train}
    if lists.val is not None and recipe.validate_on != "test":
        parts["val"] = lists.val
    if lists.test is not None and not options.no_test:
        parts["test"] = lists.test()
    return parts


def _divided(recipe: Recipe, lists: TrainTest, parts: Mapping[str, Part]) -> dict[str, Part]:
    """Return the training, validation and test images, by part.

    A test part that validates is 'test'. Cross-validated training images have no 'val'.
    """
    if lists.folded:
        return dict(parts)
    val_part = "test" if recipe.validate_on == "test" else "val"
    train, val = divide(parts["train"], parts.get(val_part), recipe.shares)
    return {**parts, "train": train, val_part: val}


def _decode_sample(
    lists: TrainTest, how: Reduction, options: TrainOptions, scratch: Path
) -> tuple[ImageStore, float]:
    """Return a store of evenly spread training images, and the seconds to decode an image."""
    items = lists.train.subset(spread_over(len(lists.train), SAMPLE))
    workers = options.workers or available_cores()
    began = time.perf_counter()
    store.build(scratch / "images", items, how, _silent, workers)
    seconds = time.perf_counter() - began
    images = store.load(scratch / "images", items)
    if len(images.broken) > len(images):
        name, why = images.broken[0]
        raise DataError(
            f"{len(images.broken)} of {len(items)} images that were tried cannot be read; the "
            f"first: '{name}' ({why})"
        )
    return images, seconds / len(items)


def _silent(_done: int) -> None:
    pass


# --- the work of a run ---------------------------------------------------------------------------

Features = tuple[str, int, int]  # part, view, split


def features_read(plan: Plan, parts: Iterable[str], pooled: int) -> set[Features]:
    """Return the features that a run reads if all of them fit the disk.

    pooled: the split before the head; the baseline reads every part there at the end.
    """
    val_part = "val" if "val" in parts else "test"
    features = {(part, 0, pooled) for part in parts}
    for phase in plan:
        if phase.split:
            features |= {("train", view, phase.split) for view in range(phase.phase.views)}
            if val_part in parts:
                features.add((val_part, 0, phase.split))
    return features


def _missing_features(
    plan: Plan, origin: Origin, parts: Mapping[str, int], stored: Mapping[str, ImageStore]
) -> tuple[set[Features], bool, int]:
    """Return the features to be cached, whether they fit the disk budget, and their bytes.

    If not all fit, training features are left out, except the baseline's. stored: the parts whose
    images are already in the cache.
    """
    network = origin.network
    pooled = len(network.stages) - 1
    features = {
        (part, view, split)
        for part, view, split in features_read(plan, parts, pooled)
        if part not in stored
        or not replace(origin, images=stored[part]).folder(view, split).is_dir()
    }

    def size() -> int:
        values = sum(
            parts[part] * math.prod(cache.shape_at(network, split)) for part, _, split in features
        )
        return values * origin.machine.torch_dtype.itemsize

    fits = size() <= cache.disk_budget()
    if not fits:
        features = {each for each in features if each[0] != "train" or each[1:] == (0, pooled)}
    return features, fits, size()


def estimate(
    plan: Plan,
    images: Mapping[str, int],
    features: Iterable[Features],
    fits: bool,
    folds: int,
    probe: Probe,
) -> dict[str, float]:
    """Return the seconds of each stage of a run.

    images: number in each of the parts 'train', 'val' and 'test' that it reads; a recipe that
    validates on the test part has no 'val'. features: those computed once and cached. fits: whether
    the training features are among them. folds: number of cross-validation folds, or 0.
    """
    val_part = "val" if "val" in images else "test"
    # One pass through the frozen layers gives a view at every split.
    passes = {(part, view): split for part, view, split in sorted(features)}
    seconds = {
        "features": sum(
            images[part] * probe.pass_seconds(split) for (part, _), split in passes.items()
        )
    }
    for phase in plan:
        if phase.solved:
            seconds[phase.name] = probe.solve(phase.images, phase.phase.views, folds)
            continue
        step, validated = probe.phase(phase, live=not (phase.split and phase.phase.views and fits))
        if phase.compiled:
            step /= COMPILE_SPEEDUP
        if folds:
            # A fit on the other folds for each fold, and one on all images: together `folds` fits.
            fit = phase.phase.epochs * phase.steps * step
            seconds[phase.name] = folds * fit
            continue
        epoch = phase.steps * step + phase.rounds * images[val_part] * validated
        seconds[phase.name] = phase.phase.epochs * epoch + COMPILE_SECONDS * phase.compiled
    tested = sum(number for part, number in images.items() if part != "train")
    seconds["test"] = tested * probe.test()
    if not plan[0].solved:
        seconds["baseline"] = probe.solve(min(images["train"], MOST_IMAGES), 1, 0)
    return seconds


# --- the pieces, timed ---------------------------------------------------------------------------


class Probe:
    """Timings of a run's parts on a sample of its images.

    unseen: bytes that the run needs beyond the measured peak, if a batch was reduced.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._positions = np.arange(len(origin.images))
        self._passes: dict[int, tuple[torch.Tensor, float]] = {}
        self.unseen = 0

    def pass_seconds(self, split: int) -> float:
        """Return the seconds per image of the frozen layers before a split."""
        return self._passed(split)[1]

    def phase(self, plan: PhasePlan, live: bool) -> tuple[float, float]:
        """Return the seconds of an uncompiled step, and of validating one image.

        live: the input of a step is computed, not cached. Layers are thawed as in the run.
        """
        network, machine, phase = self._origin.network, self._origin.machine, plan.phase
        tail = Tail(network, replace(plan, compiled=False), machine)
        training_mode(network, phase.batch_norm, phase.bn_momentum)
        read = self._cached(plan.split) if plan.split else self._live(plan.split)
        step = self._step(tail, self._live(plan.split) if live else read, phase)
        frozen = frozen_function(tail.evaluated, plan.split, None, machine, briefly=True)
        return step, self._timed(lambda positions: spread(machine, frozen, read(positions)))[1]

    def test(self) -> float:
        """Return the seconds per image of the whole network in float32."""
        exact = replace(self._origin, machine=replace(self._origin.machine, dtype="float32"))
        return self._timed(LiveFeed(exact, len(exact.network.stages), 1, 0).epoch(0))[1]

    def solve(self, rows: int, views: int, folds: int) -> float:
        """Return the seconds of a regression on `rows` images, including the choice of penalty."""
        origin, timed = self._origin, min(rows, REGRESSION_ROWS)
        positions = np.arange(timed) % len(self._positions)
        features = self._passed(len(origin.network.stages) - 1)[0].float().cpu()[positions]
        # Noise makes repeated images differ; exact copies would be too easy to solve.
        noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        features = features + 0.1 * features.std() * noise
        labels = torch.from_numpy(origin.images.labels[positions])
        began = time.perf_counter()
        problem = Problem([features] * views, labels, origin.network.head.out_features)
        if folds:
            cross_validate(problem, labels, np.arange(timed) % folds, _silent)
        else:
            some = slice(0, max(1, timed // 10))
            validate(problem, features[some] + noise[some], labels[some], _silent)
        return (time.perf_counter() - began) * rows / timed

    def _timed(self, batch: Batch) -> tuple[torch.Tensor, float]:
        """Return a function's output for the sample, and its seconds per image."""
        batch(self._positions[:FEW])
        began = time.perf_counter()
        values = batch(self._positions).cpu()  # waits for a GPU
        return values, (time.perf_counter() - began) / len(self._positions)

    def _passed(self, split: int) -> tuple[torch.Tensor, float]:
        if split not in self._passes:
            self._passes[split] = self._timed(self._live(split))
        return self._passes[split]

    def _live(self, split: int) -> Batch:
        return LiveFeed(self._origin, split, 1, 0).epoch(0)

    def _cached(self, split: int) -> Batch:
        values, device = self._passed(split)[0], self._origin.machine.torch_device
        return lambda positions: values[torch.from_numpy(positions)].to(device)

    def _step(self, tail: Tail, batches: Batch, phase: Phase) -> float:
        """Return the seconds of a step, extrapolated from a smaller batch if that is needed."""
        few = min(phase.batch_size, FEW)
        self._steps(tail, batches, phase, few, 1)
        seconds, took = self._measured(tail, batches, phase, few)
        free = available_memory() or math.inf
        share = min(STEP_SECONDS / seconds, SPARE_MEMORY * free / max(1, took))
        batch = min(phase.batch_size, max(few, int(few * share)))
        seconds, took = self._measured(tail, batches, phase, batch)
        again = min(20, max(1, round(STEP_SECONDS / seconds)))
        step = self._steps(tail, batches, phase, batch, again)
        scale = phase.batch_size / batch
        self.unseen = max(self.unseen, int(took * (scale - 1)))
        return step * scale

    def _measured(self, tail: Tail, batches: Batch, phase: Phase, batch: int) -> tuple[float, int]:
        """Return the seconds of a step and the bytes of memory that it takes."""
        before = used_memory()
        with PeakMemory() as peak:
            seconds = self._steps(tail, batches, phase, batch, 1)
        return seconds, peak.bytes - before

    def _steps(self, tail: Tail, batches: Batch, phase: Phase, batch: int, steps: int) -> float:
        """Train on random batches of the sample and return the seconds per step."""
        rng = np.random.default_rng(0)
        labels = torch.from_numpy(self._origin.images.labels)
        epoch = Epoch(
            batch=batches,
            labels=labels.to(self._origin.machine.torch_device),
            loss_weights=None,
            order=[rng.integers(len(labels), size=batch) for _ in range(steps)],
            first_step=0,
            steps=1_000_000,  # keeps the learning rate at the start of its warm-up
            seed=0,
        )
        began = time.perf_counter()
        train_epoch(tail.learner, epoch, _silent)
        return (time.perf_counter() - began) / steps
