"""Feature cache: the frozen layers' outputs for fixed views, computed once, kept on disk."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...core import console
from ...core.cache import Building, building
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

VERSION = 6
GPU_BLOCK = 1024  # images of 96 px that pass through a GPU at once


@dataclass(frozen=True)
class Origin:
    """Everything that determines a trunk's output, except the view and the split."""

    network: Network
    weights: str
    """Fingerprint of the weights."""
    images: ImageStore
    spec: Preprocess
    augment: Augment
    machine: Machine
    cuts: tuple[int, ...] = ()
    """See runtime.ends."""
    thaws: int | None = None
    """See runtime.frozen_function."""

    def key(self, view: int, split: int) -> str:
        """Return the cache key of the features of one view at a split."""
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
        """Return the cache folder of those features."""
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

    Missing splits are computed in one pass; each rank of a team does a share.
    """
    folders = {split: origin.folder(view, split) for split in splits}
    missing = {split: folder for split, folder in folders.items() if not folder.is_dir()}
    missing = world.team.share(missing)
    if missing:
        build(origin, view, missing, progress, world.team)
    return [load(folder) for folder in folders.values()]


def is_cached(origin: Origin, view: int, splits: Sequence[int]) -> bool:
    """Return whether the cache has the features of a view at several splits."""
    return all(origin.folder(view, split).is_dir() for split in splits)


def fit_budget(
    origin: Origin, views: Iterable[int], splits: Sequence[int], world: World = ALONE
) -> bool:
    """Return whether the features that the cache lacks fit the disk budget of every rank."""
    size = 0
    for view in views:
        for split in splits:
            if not origin.folder(view, split).is_dir():
                size += math.prod(shape_at(origin.network, split))
    size *= origin.machine.torch_dtype.itemsize * len(origin.images)
    return all(world.everybody.gather(not size or size <= disk_budget()))


def disk_budget() -> int:
    """Return the bytes that a new cache may take: THAWNET_CACHE_GB, or half the free disk."""
    chosen = os.environ.get("THAWNET_CACHE_GB")
    if chosen is not None:
        try:
            return int(float(chosen) * 1e9)
        except ValueError:
            raise RunError(f"THAWNET_CACHE_GB='{chosen}': must be a number of gigabytes") from None
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free // 2


def shape_at(network: Network, split: int) -> tuple[int, ...]:
    """Return the shape of one image's activations at a split, as stored."""
    return tuple(_stored(torch.empty(1, *network.shapes[split], device="meta")).shape[1:])


def build(
    origin: Origin,
    view: int,
    folders: Mapping[int, Path],
    progress: Progress,
    team: Ranks = ALONE.team,
) -> None:
    """Compute the features of one view at several splits in one pass, into a folder for each split.

    The leader of a team holds the locks; each rank writes its share of the blocks in place.
    """
    with contextlib.ExitStack() as stack:
        works: dict[int, Building] = {}
        todo = np.zeros(0, np.int64)
        if team.leads:
            # Always in the same order, so that no two processes wait for each other's locks.
            for split, folder in sorted(folders.items(), key=lambda item: item[1]):
                work = stack.enter_context(building(folder, console.say))
                if work is not None:
                    works[split] = work
            todo = _todo(origin, works.values())
        begun = {split: work.folder for split, work in works.items()}
        begun, todo = team.share((begun, todo))
        works = works or {split: Building(part, team.rank) for split, part in begun.items()}
        blocks = team.own(todo)
        progress(max(0, len(origin.images) - block_size(origin) * len(blocks) * team.size))
        _compute(origin, view, works, blocks, progress)
        team.gather(None)  # all shares are on the disk
        if team.leads:
            for split, work in works.items():
                meta = {
                    "kind": "features",
                    "shape": [len(origin.images), *shape_at(origin.network, split)],
                    "dtype": origin.machine.dtype,
                    "stage": origin.network.stages[split],
                    "view": view,
                }
                write_json(work.folder / "meta.json", meta)
    team.gather(None)  # all folders are in place


def block_size(origin: Origin) -> int:
    """Return the number of images computed at once, the same for all who build a cache."""
    if origin.machine.device == "cpu":
        return PIECE
    return max(1, round(GPU_BLOCK * min(1, (96 / origin.spec.size) ** 2)))


def _todo(origin: Origin, works: Iterable[Building]) -> NDArray[np.int64]:
    """Return the blocks that any unfinished entry lacks; merge the members' notes into one."""
    lacking: set[int] = set()
    blocks = set(range(math.ceil(len(origin.images) / block_size(origin))))
    for work in works:
        done = _done(work)
        work.replace_notes(sorted(done))
        lacking |= blocks - done
    return np.array(sorted(lacking), np.int64)


def _done(work: Building) -> set[int]:
    """Return the blocks that any member has noted as done."""
    return {number for note in work.notes() for number in note}


def _compute(
    origin: Origin,
    view: int,
    works: Mapping[int, Building],
    blocks: NDArray[np.int64],
    progress: Progress,
) -> None:
    """Compute some blocks and write each at its position. works: by split."""
    splits = sorted(works)
    trunks = [origin.trunk(first, last) for first, last in itertools.pairwise([0, *splits])]
    machine, count, size = origin.machine, len(origin.images), block_size(origin)
    views = fixed_views(count, origin.augment, view)

    def computed(block: int) -> list[NDArray[np.uint8]]:
        first, last = block * size, min((block + 1) * size, count)
        # A GPU's kernels are chosen, or compiled, for each number of images: it gets no smaller
        # last block, but the last image again.
        images = last - first if machine.device == "cpu" else size
        x = origin.pictures(np.minimum(np.arange(first, first + images), count - 1), views)
        rows = []
        for trunk in trunks:
            x = trunk(x)
            stored = _stored(x[: last - first]).to("cpu", machine.torch_dtype).contiguous()
            rows.append(stored.view(torch.uint8).numpy())
        return rows

    earlier = {split: _done(works[split]) for split in splits}
    done: list[int] = []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(works[split].open("values.bin")) for split in splits]

        def keep() -> None:
            for split, file in zip(splits, files, strict=True):
                works[split].keep(sorted(earlier[split].union(done)), file)

        try:
            for features in in_order(computed, blocks.tolist(), machine.workers, pool(machine)):
                block = int(blocks[len(done)])
                for file, rows in zip(files, features, strict=True):
                    file.seek(block * size * rows[0].nbytes)
                    file.write(rows.data)
                done.append(block)
                progress(len(features[0]))
                if any(work.pace.due() for work in works.values()):
                    keep()
        except KeyboardInterrupt:
            keep()
            raise
        keep()


def _stored(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def load(folder: Path) -> FeatureStore:
    """Open the features in a folder that `build` wrote."""
    meta = json.loads((folder / "meta.json").read_text())
    reduced = meta["dtype"] == "bfloat16"  # stored as bits: numpy has no bfloat16
    stored = np.uint16 if reduced else np.float32
    values = np.memmap(folder / "values.bin", dtype=stored, mode="r", shape=tuple(meta["shape"]))
    return FeatureStore(values, torch.bfloat16 if reduced else torch.float32)
