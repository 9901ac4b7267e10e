"""What a run will do, counted in images and optimiser steps before any of it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..data.views import undrawn_views
from ..training.baseline import MOST_IMAGES, STRENGTHS
from ..training.plan import PhasePlan, Plan


@dataclass(frozen=True)
class Pass:
    """The frozen layers before a split over one view of some images.

    drawn: a view that is resampled, not the plain or the mirrored one.
    """

    split: int
    drawn: bool
    images: int


@dataclass(frozen=True)
class PhaseWork:
    """What a phase does. live, val_live: its input is computed every epoch, not cached."""

    plan: PhasePlan
    validated: int
    live: bool
    val_live: bool


@dataclass(frozen=True)
class Work:
    """What a run does.

    decoded: images of stores that are not there yet. tested: images that the whole network sees
    in the end. fits: logistic regressions, on `rows` images each. written: bytes of new stores
    and caches.
    """

    decoded: int
    passes: tuple[Pass, ...]
    phases: tuple[PhaseWork, ...]
    tested: int
    fits: int
    rows: int
    written: int


@dataclass
class Caches:
    """The feature caches as a run finds and fills them.

    found: whether (part, view, split) is there. sizes: bytes of one image at each split.
    budget: bytes written so far -> bytes that one more cache may take. passes, written: so far.
    """

    found: Callable[[str, int, int], bool]
    sizes: Mapping[int, int]
    flip: bool
    budget: Callable[[int], int]
    passes: list[Pass] = field(default_factory=list)
    written: int = 0
    _made: set[tuple[str, int, int]] = field(default_factory=set)

    def fill(self, part: str, images: int, views: int, splits: Sequence[int]) -> bool:
        """Count what makes the first views of a part; False when they exceed the budget."""
        wanted = [[(part, view, split) for split in splits] for view in range(views)]
        missing = [
            [key for key in keys if key not in self._made and not self.found(*key)]
            for keys in wanted
        ]
        size = images * sum(self.sizes[split] for keys in missing for _, _, split in keys)
        if size > self.budget(self.written):
            return False
        self.written += size
        for view, keys in enumerate(missing):
            if keys:
                self._made.update(keys)
                drawn = view >= undrawn_views(self.flip)
                self.passes.append(Pass(max(split for _, _, split in keys), drawn, images))
        return True


def count(
    plan: Plan,
    pooled: int,
    images: Mapping[str, int],
    caches: Caches,
    decoded: int,
    written: int,
) -> Work:
    """Return the work of a run.

    pooled: the split whose features the head reads. images: of the parts 'train', 'val' and 'test'
    that it reads; a recipe that validates on the test part has no 'val'. decoded, written: images
    and bytes of the stores that are not there yet.
    """
    held_out = "val" if "val" in images else "test"
    phases = []
    for phase in plan:
        live = {}
        for part, views, splits in (
            ("train", phase.phase.views, phase.cached),
            (held_out, 1, phase.cached_held_out),
        ):
            cached = (
                phase.split > 0 and views > 0 and caches.fill(part, images[part], views, splits)
            )
            live[part] = not cached
        phases.append(
            PhaseWork(
                plan=phase,
                validated=phase.rounds * images[held_out],
                live=live["train"],
                val_live=live[held_out],
            )
        )
    # The baseline reads pooled features of every part in the end.
    for part, number in images.items():
        if not caches.fill(part, number, 1, [pooled]):
            caches.passes.append(Pass(pooled, False, number))
    return Work(
        decoded=decoded,
        passes=tuple(caches.passes),
        phases=tuple(phases),
        tested=sum(number for part, number in images.items() if part != "train"),
        fits=len(STRENGTHS) if "val" in images else 1,
        rows=min(images["train"], MOST_IMAGES),
        written=caches.written + written,
    )
