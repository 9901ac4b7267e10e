"""How long a run would take here and how much memory: measured on a sample, for its own plan.

Only compiling is not tried out; what it costs and gains stands in training/machine.py.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import DataError
from ..core.files import cache_folder, clear_disk_errors
from ..core.memory import PeakMemory, available_cores, return_freed_memory, used_memory
from ..data import store
from ..data.items import Items, Source, spread_over
from ..data.splits import TrainTest
from ..data.store import ImageStore
from ..recipe import Recipe, TrainOptions
from ..training.baseline import MOST_IMAGES
from ..training.call import check_call, chosen
from ..training.checkpoint import RunState
from ..training.context import Run
from ..training.parts import divide
from ..training.plan import make_plan
from ..training.pretrained import build_network, fit_input
from ..training.ranks import ALONE
from ..training.trunk import cache
from .estimate import Caches, estimate
from .probe import Probe

SAMPLE = 256  # images measured on
ENDING = 3.0  # seconds for what is not timed: bundle, plot, predictions, ending the process


@dataclass(frozen=True)
class Forecast:
    """What a run is expected to take."""

    recipe: str
    backbone: str
    size: int
    """Pixels a side of the network's input."""
    weights: str
    images: dict[str, int]
    """Of each part that is read."""
    train_from: str
    """The first layer that fine-tuning trains."""
    epochs: tuple[int, ...]
    """Of both phases."""
    patience: bool
    """Whether a phase may stop earlier."""
    compiled: bool
    cached: bool
    """Whether the frozen layers' outputs fit the disk budget."""
    seconds: dict[str, float]
    """Of each stage."""
    memory: int
    """Bytes of anonymous memory at the peak, all processes."""
    written: int
    """Bytes of new stores and caches."""

    @property
    def total(self) -> float:
        """Seconds from call to result."""
        return sum(self.seconds.values())


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
                world=ALONE,
                source=source,
                lists=lists,
                spec=spec,
                weights=weights,
                network=network,
                train=sample,
                val=sample,
                plan=make_plan(recipe, network, machine, images["train"]),
                state=RunState(options, recipe, machine, {}, 1),
            )
            stores = {part: _stored(items, spec.side) for part, items in listed.items()}
            missing = sum(
                len(items)
                for part, items in listed.items()
                if items is not None and not stores[part]
            )
            pooled = len(network.stages) - 1
            caches = _caches(run, stores, pooled)
            probe = Probe(run, sample, Path(scratch))
            stages, fits = estimate(run.plan, pooled, images, caches, probe)
        # What was freed is used again in the end, for the features of the baseline.
        gc.collect()
        return_freed_memory()
        settled = used_memory()
        memory = max(peak.bytes + probe.unseen, settled + _baseline_bytes(run, images))
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
        cached=fits,
        seconds={"start": opened, "data": missing * decoded, **stages, "end": ENDING},
        memory=memory,
        written=caches.written + missing * len(sample.pixels) // len(sample),
    )


def _baseline_bytes(run: Run, images: Mapping[str, int]) -> int:
    """Return the bytes that the baseline's features take: in parts, as a whole, and scaled."""
    rows = min(images["train"], MOST_IMAGES)
    tested = sum(number for part, number in images.items() if part != "train")
    return 4 * run.network.head.in_features * (3 * rows + 2 * tested)


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


def _caches(run: Run, stores: Mapping[str, ImageStore | None], pooled: int) -> Caches:
    """Return the feature caches that are there already.

    stores: of the parts listed. pooled: the split whose features the head reads.
    """
    train, val = stores["train"], stores["val"]
    on_test = run.recipe.validate_on == "test"
    there = {"test": val if on_test else stores["test"]}
    if train and ((run.lists.val is None and not on_test) or val):
        there["train"], there["val"] = divide(train, val, run.recipe.split_seed)
    splits = {pooled, *(phase.split for phase in run.plan)} - {0}
    size = run.machine.torch_dtype.itemsize

    def found(part: str, view: int, split: int) -> bool:
        images = there.get(part)
        return images is not None and run.origin(images).folder(view, split).is_dir()

    return Caches(
        found=found,
        sizes={at: size * math.prod(cache.shape_at(run.network, at)) for at in splits},
        flip=run.origin(run.train).augment.flip,
        budget=cache.disk_budget,
    )


def _stored(items: Items | None, side: int) -> ImageStore | None:
    """Return the store of these images if the cache has it."""
    if items is None or not (folder := store.store_folder(items, side)).is_dir():
        return None
    return store.load(folder, items)


def _silent(_done: int) -> None:
    pass
