"""Never compute twice what is frozen: the trunk's outputs for fixed views, once, on disk."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...core import console
from ...core.cache import Building, Pace, building
from ...core.errors import RunError
from ...core.files import cache_folder, fingerprint, write_json
from ...data.augment import Augment
from ...data.device import sent
from ...data.parallel import in_order
from ...data.store import ImageStore, Progress
from ...data.views import Views, fixed_views, render, undrawn_views
from ...image.preprocess import Preprocess
from ...model.backbone import Network
from ..machine import Machine
from ..ranks import ALONE, Ranks, World
from .runtime import PIECE, Function, ends, frozen_function, pool

VERSION = 5
GPU_BLOCK = 1024  # images of 96 px that pass through a GPU at once


@dataclass(frozen=True)
class Origin:
    """All that decides a trunk's output, but for the view and the split.

    cuts, thaws: see runtime.frozen_function.
    """

    network: Network
    weights: str
    images: ImageStore
    spec: Preprocess
    augment: Augment
    machine: Machine
    cuts: tuple[int, ...] = ()
    thaws: int | None = None

    def key(self, view: int, split: int) -> str:
        """Name the features of one view at a split."""
        stages = self.network.stages
        pieces = [stages[end] for end in ends(self.network, 0, split, self.cuts)]
        drawn = view if view < undrawn_views(self.augment.flip) else [view, self.augment]
        passing = self.thaws if self.thaws is not None and self.thaws < split else None
        return fingerprint(
            [
                [VERSION, torch.__version__, self.network.backbone, self.weights],
                [pieces, passing],
                [self.images.fingerprint, self.spec.as_dict(), drawn],
                [self.machine.chip, self.machine.dtype, self.machine.runtime],
            ]
        )

    def folder(self, view: int, split: int) -> Path:
        """Return where the cache keeps those features."""
        return cache_folder() / "features" / self.key(view, split)

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

    def trunk(self, first: int, last: int) -> Function:
        """Return the frozen stages first..last (exclusive); see frozen_function."""
        return frozen_function(self.network, first, last, self.machine, self.cuts, thaws=self.thaws)


@dataclass(frozen=True)
class FeatureStore:
    """Activations of one view of one part at one split: (n, ...), channels last on disk."""

    values: NDArray[Any]
    dtype: torch.dtype

    def at(self, positions: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        """Return activations (n, channels, height, width), channels last, or (n, features)."""
        rows = sent(self.values[positions], device).view(self.dtype)
        return rows.permute(0, 3, 1, 2) if rows.dim() == 4 else rows


def cached_features(
    origin: Origin,
    view: int,
    splits: Sequence[int],
    progress: Progress,
    world: World = ALONE,
) -> list[FeatureStore]:
    """Return the features of one view at several splits, computing what the cache lacks.

    Missing splits are computed in one pass, of which each rank of a team does a share.
    """
    paths = _paths(origin, view, splits)
    missing = [place for place, path in enumerate(paths) if not path.is_dir()]
    missing = world.team.share(missing)
    if missing:
        targets = [
            Target(splits[place], paths[place], shape_at(origin.network, splits[place]))
            for place in missing
        ]
        build(origin, view, targets, progress, world.team)
    return [load(path) for path in paths]


def is_cached(origin: Origin, view: int, splits: Sequence[int]) -> bool:
    """Whether the cache has the features of a view at several splits."""
    return all(path.is_dir() for path in _paths(origin, view, splits))


def fit_budget(
    origin: Origin, views: Iterable[int], splits: Sequence[int], world: World = ALONE
) -> bool:
    """Whether what the cache lacks of some views fits the disk budget of every rank."""
    size = 0
    for view in views:
        for split, path in zip(splits, _paths(origin, view, splits), strict=True):
            if not path.is_dir():
                size += math.prod(shape_at(origin.network, split))
    size *= origin.machine.torch_dtype.itemsize * len(origin.images)
    return all(world.everybody.gather(not size or size <= disk_budget()))


def _paths(origin: Origin, view: int, splits: Sequence[int]) -> list[Path]:
    return [origin.folder(view, split) for split in splits]


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


def shape_at(network: Network, split: int) -> tuple[int, ...]:
    """Return the shape of one image's activations at a split, as stored."""
    return tuple(_stored(torch.empty(1, *network.shapes[split], device="meta")).shape[1:])


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
        size = block_size(origin)
        progress(max(0, len(origin.images) - size * len(blocks) * team.size))
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


def block_size(origin: Origin) -> int:
    """Return the images that are computed at once, whoever builds a cache."""
    if origin.machine.device == "cpu":
        return PIECE
    return max(1, round(GPU_BLOCK * min(1, (96 / origin.spec.size) ** 2)))


def _todo(origin: Origin, works: Sequence[Building]) -> NDArray[np.int64]:
    """Return the blocks that any unfinished entry lacks, and make one note of every member's."""
    lacking: set[int] = set()
    blocks = set(range(math.ceil(len(origin.images) / block_size(origin))))
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
    machine, count, size = origin.machine, len(origin.images), block_size(origin)
    views = fixed_views(count, origin.augment, view)

    def computed(block: int) -> list[NDArray[np.uint8]]:
        x = origin.pictures(np.arange(block * size, min((block + 1) * size, count)), views)
        found = []
        for trunk in trunks:
            x = trunk(x)
            stored = _stored(x).to("cpu", machine.torch_dtype).contiguous()
            found.append(stored.view(torch.uint8).numpy())
        return found

    earlier = [_done(work) for _, work in works]
    done: list[int] = []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(work.open("values.bin")) for _, work in works]

        def keep() -> None:
            for (_, work), file, before in zip(works, files, earlier, strict=True):
                work.keep(sorted(before.union(done)), file)

        pace = Pace()
        try:
            for found in in_order(computed, blocks.tolist(), machine.workers, pool(machine)):
                block = int(blocks[len(done)])
                for file, rows in zip(files, found, strict=True):
                    file.seek(block * size * rows[0].nbytes)
                    file.write(rows.data)
                done.append(block)
                progress(len(found[0]))
                if pace.due():
                    keep()
                    pace.restart()
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
