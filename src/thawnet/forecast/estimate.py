"""The seconds of a run: what its plan makes it do, counted, times measured speeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ..data.views import undrawn_views
from ..training.baseline import MOST_IMAGES, STRENGTHS
from ..training.machine import COMPILE_SECONDS, COMPILE_SPEEDUP
from ..training.plan import PhasePlan, Plan


class Pass(NamedTuple):
    """The frozen layers before a split over one view of some images.

    drawn: a view that is resampled, not the plain or the mirrored one.
    """

    split: int
    drawn: bool
    images: int


class PhaseSpeed(NamedTuple):
    """Seconds of an eager step, of validating one image, and of what an epoch does besides."""

    step: float
    validated: float
    epoch: float


class Speeds(Protocol):
    """How fast this machine does the pieces of a run."""

    def passing(self, each: Pass) -> float:
        """Return the seconds of a pass."""

    def phase(self, plan: PhasePlan, live: bool, val_live: bool) -> PhaseSpeed:
        """Return the speeds of a phase; live, val_live: its input is computed, not cached."""

    def test(self) -> float:
        """Return the seconds per image of the whole network in float32."""

    def fit(self, rows: int) -> float:
        """Return the seconds of one logistic regression on so many images."""


@dataclass
class Caches:
    """The feature caches as a run finds and fills them."""

    found: Callable[[str, int, int], bool]
    """Whether (part, view, split) is there."""
    sizes: Mapping[int, int]
    """Bytes of one image at each split."""
    flip: bool
    """Whether the second view is the mirrored one."""
    budget: Callable[[int], int]
    """Bytes written so far -> bytes that one more cache may take."""
    written: int = 0
    """Bytes of the caches filled so far."""
    _made: set[tuple[str, int, int]] = field(default_factory=set)

    def fill(self, part: str, images: int, views: int, splits: Sequence[int]) -> list[Pass] | None:
        """Return the passes that make the first views of a part; None if they exceed the budget."""
        missing = [
            [
                split
                for split in splits
                if (part, view, split) not in self._made and not self.found(part, view, split)
            ]
            for view in range(views)
        ]
        size = images * sum(self.sizes[split] for lacking in missing for split in lacking)
        if size > self.budget(self.written):
            return None
        self.written += size
        self._made |= {(part, view, split) for view in range(views) for split in missing[view]}
        drawn_from = undrawn_views(self.flip)
        return [
            Pass(max(lacking), view >= drawn_from, images)
            for view, lacking in enumerate(missing)
            if lacking
        ]


def estimate(
    plan: Plan, pooled: int, images: Mapping[str, int], caches: Caches, speeds: Speeds
) -> tuple[dict[str, float], bool]:
    """Return the seconds of each stage of a run, and whether training's caches fit the disk budget.

    pooled: the split whose features the head reads. images: of the parts 'train', 'val' and 'test'
    that it reads; a recipe that validates on the test part has no 'val'.
    """
    val_part = "val" if "val" in images else "test"
    seconds, fits = {"features": 0.0}, True
    for phase in plan:
        live = {}
        for part, views, splits in (
            ("train", phase.phase.views, phase.cached),
            (val_part, 1, phase.cached_val),
        ):
            wanted = phase.split > 0 and views > 0
            passes = caches.fill(part, images[part], views, splits) if wanted else None
            if part == "train" and wanted and passes is None:
                fits = False
            live[part] = passes is None
            seconds["features"] += sum(map(speeds.passing, passes or ()))
        speed = speeds.phase(phase, live["train"], live[val_part])
        step = speed.step / COMPILE_SPEEDUP if phase.compiled else speed.step
        validated = phase.rounds * images[val_part] * speed.validated
        epochs = phase.phase.epochs * (phase.steps * step + validated + speed.epoch)
        seconds[phase.name] = epochs + (COMPILE_SECONDS if phase.compiled else 0)
    # The baseline reads pooled features of every part in the end.
    for part, number in images.items():
        passes = caches.fill(part, number, 1, [pooled])
        recomputed = [Pass(pooled, False, number)]
        seconds["features"] += sum(map(speeds.passing, recomputed if passes is None else passes))
    tested = sum(number for part, number in images.items() if part != "train")
    seconds["test"] = tested * speeds.test()
    strengths = len(STRENGTHS) if "val" in images else 1
    seconds["baseline"] = strengths * speeds.fit(min(images["train"], MOST_IMAGES))
    return seconds, fits
