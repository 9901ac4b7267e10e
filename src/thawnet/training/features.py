"""Never compute twice what is frozen: the trunk's outputs for fixed views, once, on disk."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.augment import Augment
from ..data.store import ImageStore, Progress
from ..data.views import Views, fixed_views, random_views, render, undrawn_views
from ..errors import RunError
from ..files import cache_folder, fingerprint, new_folder, write_json
from ..image.preprocess import Preprocess
from ..model.backbone import Network, frozen_function
from .machine import Machine

VERSION = 2
BLOCK = 256  # images per pass; fixed, so that whoever builds a cache builds the same one

Batch = Callable[[NDArray[np.int64]], torch.Tensor]


class Feed(Protocol):
    """Gives the input of the part that trains, for any images of one part of the data."""

    def epoch(self, number: int) -> Batch:
        """Return a function from positions (n,) to activations (n, ...) for one epoch."""


@dataclass(frozen=True)
class Origin:
    """All that decides a trunk's output, but for the view and the split."""

    network: Network
    weights: str
    images: ImageStore
    spec: Preprocess
    augment: Augment
    machine: Machine

    def key(self, view: int, stage: str) -> str:
        """Name the features of one view at the input of one stage."""
        drawn = view if view < undrawn_views(self.augment.flip) else [view, self.augment]
        return fingerprint(
            [
                [VERSION, torch.__version__, self.network.backbone, self.weights, stage],
                [self.images.fingerprint, self.spec.as_dict(), drawn],
                [self.machine.device, self.machine.dtype, self.machine.threads],
            ]
        )

    def folder(self, view: int, stage: str) -> Path:
        """Return where the cache keeps those features."""
        return cache_folder() / "features" / self.key(view, stage)

    def pictures(self, positions: NDArray[np.int64], views: Views) -> torch.Tensor:
        """Return network input for some images; `views` holds one view of every image."""
        return render(
            self.images,
            positions,
            views.at(positions),
            self.spec,
            self.augment,
            self.machine.torch_device,
        )

    def trunk(self, first: int, last: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the frozen stages first..last (exclusive) as a function."""
        machine = self.machine
        return frozen_function(self.network, first, last, machine.trunk_dtype, machine.torch_device)


@dataclass(frozen=True)
class FeatureStore:
    """Activations of one view of one part at one split: (n, ...), channels last on disk."""

    values: NDArray[Any]
    dtype: torch.dtype

    def at(self, positions: NDArray[np.int64]) -> torch.Tensor:
        """Return activations (n, channels, height, width), channels last, or (n, features)."""
        rows = torch.from_numpy(self.values[positions]).view(self.dtype)
        return rows.permute(0, 3, 1, 2) if rows.dim() == 4 else rows


@dataclass(frozen=True)
class CachedFeed:
    """Reads features; in each epoch every image shows one of its views, in a seeded turn."""

    stores: Sequence[FeatureStore]
    count: int
    seed: int
    device: torch.device

    def epoch(self, number: int) -> Batch:
        """See Feed."""
        numbers = view_numbers(self.count, len(self.stores), self.seed, number)

        def batch(positions: NDArray[np.int64]) -> torch.Tensor:
            chosen = numbers[positions]
            whole = self.stores[0].at(positions)
            for view, store in enumerate(self.stores[1:], start=1):
                mask = chosen == view
                if mask.any():
                    whole[torch.from_numpy(mask)] = store.at(positions[mask])
            return whole.to(self.device, non_blocking=True)

        return batch


class LiveFeed:
    """Renders views and runs the trunk on every batch.

    views: how many fixed views an image has, as if cached; 0 draws fresh ones every epoch.
    """

    def __init__(self, origin: Origin, split: int, views: int, seed: int) -> None:
        self.origin = origin
        self.views = views
        self.seed = seed
        self.trunk = origin.trunk(0, split) if split else None

    def epoch(self, number: int) -> Batch:
        """See Feed."""
        origin = self.origin
        views = self._views(number)

        def batch(positions: NDArray[np.int64]) -> torch.Tensor:
            pictures = origin.pictures(positions, views)
            if self.trunk is None:
                return pictures.contiguous(memory_format=torch.channels_last)
            # Activations leave inference mode by a copy, so that autograd may save them.
            return self.trunk(pictures).to(origin.machine.torch_dtype, copy=True)

        return batch

    def _views(self, number: int) -> Views:
        count, augment = len(self.origin.images), self.origin.augment
        if self.views == 0:
            return random_views(count, augment, self.seed, number)
        chosen = view_numbers(count, self.views, self.seed, number)
        drawn = [fixed_views(count, augment, view) for view in range(self.views)]
        return Views.chosen(drawn, chosen)


def view_numbers(count: int, views: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return which view each image shows in an epoch; over `views` epochs each shows all."""
    start = np.random.default_rng([seed, 0x51EB]).integers(views, size=count)
    return (start + epoch) % views


def cached_features(
    origin: Origin,
    view: int,
    splits: Sequence[int],
    progress: Progress,
) -> list[FeatureStore] | None:
    """Return the features of one view at several splits, computing what the cache lacks.

    Missing splits are computed in one pass. None when they do not fit the disk budget; the caller
    then computes them as they are needed.
    """
    names = [origin.network.stages[split] for split in splits]
    paths = [origin.folder(view, name) for name in names]
    missing = [place for place, path in enumerate(paths) if not path.is_dir()]
    if missing:
        wanted = [splits[place] for place in missing]
        shapes = shapes_at(origin, wanted)
        size = sum(math.prod(shape) for shape in shapes) * origin.machine.torch_dtype.itemsize
        if size * len(origin.images) > disk_budget():
            return None
        build(origin, view, wanted, shapes, [paths[place] for place in missing], progress)
    return [load(path) for path in paths]


def disk_budget(written: int = 0) -> int:
    """Return how many bytes a new cache may take: THAWNET_CACHE_GB, or half the free disk.

    written: bytes that will have been written by then.
    """
    chosen = os.environ.get("THAWNET_CACHE_GB")
    if chosen is not None:
        try:
            return int(float(chosen) * 1e9)
        except ValueError:
            raise RunError(f"THAWNET_CACHE_GB='{chosen}': must be a number of gigabytes") from None
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    return (shutil.disk_usage(folder).free - written) // 2


def shapes_at(origin: Origin, splits: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the shape of one image's activations, as stored, at each split."""
    positions = np.zeros(1, dtype=np.int64)
    return [
        _stored(LiveFeed(origin, split, 1, 0).epoch(0)(positions)).shape[1:] for split in splits
    ]


def build(
    origin: Origin,
    view: int,
    splits: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
    paths: Sequence[Path],
    progress: Progress,
) -> None:
    """Compute the features of one view at several splits in one pass, a folder for each split."""
    order = sorted(range(len(splits)), key=lambda place: splits[place])
    starts = [0, *(splits[place] for place in order)]
    trunks = [origin.trunk(first, last) for first, last in itertools.pairwise(starts)]
    count = len(origin.images)
    views = fixed_views(count, origin.augment, view)
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(new_folder(path)) for path in paths]
        files: list[IO[bytes]] = [
            stack.enter_context((folder / "values.bin").open("wb")) for folder in folders
        ]
        for start in range(0, count, BLOCK):
            positions = np.arange(start, min(start + BLOCK, count))
            x = origin.pictures(positions, views)
            for place, trunk in zip(order, trunks, strict=True):
                x = trunk(x)
                stored = _stored(x).to("cpu", origin.machine.torch_dtype).contiguous()
                files[place].write(stored.view(torch.uint8).numpy().data)
            progress(len(positions))
        for file in files:
            file.close()
        for place, folder in enumerate(folders):
            meta = {
                "kind": "features",
                "shape": [count, *shapes[place]],
                "dtype": origin.machine.dtype,
                "stage": origin.network.stages[splits[place]],
                "view": view,
            }
            write_json(folder / "meta.json", meta)


def _stored(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


_NUMPY = {"bfloat16": np.uint16, "float32": np.float32}
_TORCH = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def load(path: Path) -> FeatureStore:
    """Open the features in a folder that `build` made."""
    meta = json.loads((path / "meta.json").read_text())
    values = np.memmap(
        path / "values.bin", dtype=_NUMPY[meta["dtype"]], mode="r", shape=tuple(meta["shape"])
    )
    return FeatureStore(values, _TORCH[meta["dtype"]])
