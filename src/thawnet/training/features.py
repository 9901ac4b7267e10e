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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import console
from ..building import Building, Pace, building
from ..data.augment import Augment
from ..data.store import ImageStore, Progress
from ..data.views import Views, fixed_views, render, undrawn_views
from ..errors import RunError
from ..files import cache_folder, fingerprint, write_json
from ..image.preprocess import Preprocess
from ..model.backbone import Network, frozen_function
from .machine import Machine
from .ranks import ALONE, Ranks, World

VERSION = 2
BLOCK = 256  # images per pass; fixed, so that whoever builds a cache builds the same one


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
                [self.machine.chip, self.machine.dtype, self.machine.threads],
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


def cached_features(
    origin: Origin,
    view: int,
    splits: Sequence[int],
    progress: Progress,
    world: World = ALONE,
) -> list[FeatureStore] | None:
    """Return the features of one view at several splits, computing what the cache lacks.

    Missing splits are computed in one pass, of which each rank of a team does a share. None when
    they do not fit the disk budget; the caller then computes them as they are needed.
    """
    names = [origin.network.stages[split] for split in splits]
    paths = [origin.folder(view, name) for name in names]
    missing = [place for place, path in enumerate(paths) if not path.is_dir()]
    missing = world.team.share(missing)
    shapes = shapes_at(origin, [splits[place] for place in missing])
    size = sum(math.prod(shape) for shape in shapes) * origin.machine.torch_dtype.itemsize
    fits = not missing or size * len(origin.images) <= disk_budget()
    if not all(world.everybody.gather(fits)):
        return None
    if missing:
        targets = [
            Target(splits[place], paths[place], shape)
            for place, shape in zip(missing, shapes, strict=True)
        ]
        build(origin, view, targets, progress, world.team)
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
    picture = origin.pictures(np.zeros(1, np.int64), fixed_views(1, origin.augment, 0))
    return [tuple(_stored(origin.trunk(0, split)(picture)).shape[1:]) for split in splits]


@dataclass(frozen=True)
class Target:
    """Features to compute: at which split, where they go, the shape of one image's."""

    split: int
    path: Path
    shape: tuple[int, ...]


def build(
    origin: Origin,
    view: int,
    targets: Sequence[Target],
    progress: Progress,
    team: Ranks = ALONE.team,
) -> None:
    """Compute the features of one view at several splits in one pass, a folder for each split.

    The leader of a team holds the folders; each rank writes its share of the blocks in its place.
    """
    # In one order everywhere, so that two processes never wait for each other's locks.
    ordered = sorted(targets, key=lambda target: target.path)
    with contextlib.ExitStack() as stack:
        mine: list[tuple[Target, Building]] = []
        todo = np.zeros(0, np.int64)
        if team.leads:
            for target in ordered:
                work = stack.enter_context(building(target.path, console.say))
                if work is not None:
                    mine.append((target, work))
            todo = _todo(origin, [work for _, work in mine])
        shared = team.share([(target, work.folder) for target, work in mine])
        mine = mine or [(target, Building(folder, team.rank)) for target, folder in shared]
        blocks = team.own(team.share(todo))
        progress(max(0, len(origin.images) - BLOCK * len(blocks) * team.size))
        _compute(origin, view, mine, blocks, progress)
        team.gather(None)  # all shares are on the disk
        if team.leads:
            for target, work in mine:
                meta = {
                    "kind": "features",
                    "shape": [len(origin.images), *target.shape],
                    "dtype": origin.machine.dtype,
                    "stage": origin.network.stages[target.split],
                    "view": view,
                }
                write_json(work.folder / "meta.json", meta)
    team.gather(None)  # all are in their place


def _todo(origin: Origin, works: Sequence[Building]) -> NDArray[np.int64]:
    """Return the blocks that any unfinished entry lacks, and make one note of every member's."""
    lacking: set[int] = set()
    blocks = set(range(math.ceil(len(origin.images) / BLOCK)))
    for work in works:
        done = _done(work)
        work.replace_notes(sorted(done))
        lacking |= blocks - done
    return np.array(sorted(lacking), np.int64)


def _done(work: Building) -> set[int]:
    """Return the blocks that any member noted."""
    return {number for note in work.notes() for number in note}


def _compute(
    origin: Origin,
    view: int,
    works: Sequence[tuple[Target, Building]],
    blocks: NDArray[np.int64],
    progress: Progress,
) -> None:
    """Compute some blocks and write each in its place."""
    works = sorted(works, key=lambda pair: pair[0].split)
    starts = [0, *(target.split for target, _ in works)]
    trunks = [origin.trunk(first, last) for first, last in itertools.pairwise(starts)]
    count = len(origin.images)
    views = fixed_views(count, origin.augment, view)
    earlier = [_done(work) for _, work in works]
    done: list[int] = []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(work.open("values.bin")) for _, work in works]

        def keep() -> None:
            for (_, work), file, before in zip(works, files, earlier, strict=True):
                work.keep(sorted(before.union(done)), file)

        pace = Pace()
        try:
            for block in blocks.tolist():
                positions = np.arange(block * BLOCK, min((block + 1) * BLOCK, count))
                x = origin.pictures(positions, views)
                for file, trunk in zip(files, trunks, strict=True):
                    x = trunk(x)
                    stored = _stored(x).to("cpu", origin.machine.torch_dtype).contiguous()
                    rows = stored.view(torch.uint8).numpy()
                    file.seek(block * BLOCK * rows[0].nbytes)
                    file.write(rows.data)
                done.append(block)
                progress(len(positions))
                if pace.due():
                    keep()
                    pace.kept()
        except KeyboardInterrupt:
            keep()
            raise
        keep()


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
