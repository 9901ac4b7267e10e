"""An audit of a data set: what is in it, what is damaged, and which pictures are in it twice."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import DataError
from ..data.items import Items, Source
from ..data.sources.open import open_source
from ..data.splits import arrange
from ..image.decode import Stored, decode_stored
from .contents import SCOPES, Audit, Group, Member, Part, Scope
from .duplicates import LEAST_SIDE, SIDE, NearPairs, connect, find_near, find_plain, thumbnail
from .findings import judge

PARTS = ("train", "val", "test")
_CHUNK = 64  # images between two progress reports

Bars = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def _no_bar(_title: str, _images: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def inspect(data: str, data_dir: Path | None = None, size: int = 96) -> Audit:
    """Audit DATA, everything that `thawnet train` takes.

    size: pixels a side of the network's input. Raises DataError when DATA cannot be opened.
    """
    return audit(open_source(data, data_dir), size)


def audit(source: Source, size: int, bars: Bars = _no_bar) -> Audit:
    """Audit every part of a source, the test part too: nothing is trained or chosen by it.

    bars: opens a progress bar, as (title, images), and yields the function that advances it.
    Of each image about 1 kB is kept, however large it is; CIFAR-100's 60,000 take half a minute on
    two cores and 150 MB beside the source's own.
    """
    opened: dict[str, Items] = {}
    unusable: list[str] = []
    for name in PARTS:
        if name in source.parts:
            try:
                source.check_part(name)
                opened[name] = source.open_part(name)
            except DataError as error:
                if name == "train":
                    raise
                unusable.append(str(error))
    seen = _Seen.of(sum(len(items) for items in opened.values()))
    parts: list[Part] = []
    pictures: list[Member] = []
    for name, items in opened.items():
        with bars(f"reading {name}", len(items)) as progress:
            room = seen.cut(slice(len(pictures), None))
            part, rows = _measure(name, items, source.classes, size, room, progress)
        parts.append(part)
        pictures += [
            Member(name, source.classes[items.labels[row]], items.names[row]) for row in rows
        ]
    seen = seen.cut(slice(len(pictures)))
    groups = _groups(pictures, seen, source.mirror_safe, bars)
    test = _planned_test(source, opened)
    found = Audit(
        name=source.name,
        classes=source.classes,
        size=size,
        parts=tuple(parts),
        split_off=len(test),
        straddling=sum(
            len({picture.name in test for picture in group.pictures if picture.part == "train"}) > 1
            for group in groups
        ),
        groups=tuple(groups),
        notes=source.notes,
        unusable=tuple(unusable),
    )
    return replace(found, findings=tuple(judge(found)))


@dataclass(frozen=True)
class _Seen:
    """Of each image: the hash of its pixels (n,) V16, thumbnail, and width and height (n, 2)."""

    digests: NDArray[np.void]
    thumbnails: NDArray[np.uint8]
    shapes: NDArray[np.int32]

    @classmethod
    def of(cls, count: int) -> _Seen:
        """Make room for so many images."""
        return cls(
            np.empty(count, dtype="V16"),
            np.empty((count, SIDE, SIDE), dtype=np.uint8),
            np.empty((count, 2), dtype=np.int32),
        )

    def cut(self, rows: slice) -> _Seen:
        """Return the rows, sharing memory."""
        return _Seen(self.digests[rows], self.thumbnails[rows], self.shapes[rows])


@dataclass(frozen=True)
class _Look:
    stored: Stored
    stored_bytes: int
    shape: tuple[int, int]
    digest: bytes
    thumbnail: NDArray[np.uint8]


def _look(items: Items, position: int) -> _Look | str:
    """Return what one image is, or why it cannot be read."""
    try:
        raw = items.read(position)
        if isinstance(raw, bytes):
            image, stored = decode_stored(raw)
        else:
            image = Image.fromarray(raw)
            stored = Stored("pixels", image.mode)
    except DataError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    pixels = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    pixels.update(image.tobytes())
    return _Look(
        stored=stored,
        stored_bytes=len(raw) if isinstance(raw, bytes) else raw.nbytes,
        shape=image.size,
        digest=pixels.digest(),
        thumbnail=thumbnail(image),
    )


def _measure(
    name: str,
    items: Items,
    classes: Sequence[str],
    size: int,
    seen: _Seen,
    progress: Callable[[int], None],
) -> tuple[Part, list[int]]:
    """Read one part into `seen`; return what it holds and the positions that can be read."""
    count = len(items)
    modes, formats = Counter[str](), Counter[str]()
    animated, broken, kept = [], [], list[int]()
    total = turned = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, _CHUNK):
            positions = range(start, min(start + _CHUNK, count))
            looks = pool.map(lambda position: _look(items, position), positions)
            for position, look in zip(positions, looks, strict=True):
                if isinstance(look, str):
                    broken.append((items.names[position], look))
                    continue
                place = len(kept)
                kept.append(position)
                seen.digests[place] = np.void(look.digest)
                seen.thumbnails[place] = look.thumbnail
                seen.shapes[place] = look.shape
                modes[look.stored.mode] += 1
                formats[look.stored.format] += 1
                total += look.stored_bytes
                turned += look.stored.turned
                if look.stored.animated:
                    animated.append(items.names[position])
            progress(len(positions))
    shapes = seen.shapes[: len(kept)]
    plain = np.flatnonzero(find_plain(seen.thumbnails[: len(kept)]))
    part = Part(
        name=name,
        images=count,
        stored_bytes=total,
        counts=_class_counts(items.labels[kept], classes),
        width=_spread(shapes[:, 0]),
        height=_spread(shapes[:, 1]),
        smaller=int((shapes.min(axis=1) < size).sum()),
        tiny=int((shapes.min(axis=1) < LEAST_SIDE).sum()),
        modes=dict(modes.most_common()),
        formats=dict(formats.most_common()),
        turned=turned,
        animated=tuple(animated),
        plain=tuple(items.names[kept[row]] for row in plain),
        broken=tuple(broken),
    )
    return part, kept


def _class_counts(labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))


def _spread(values: NDArray[np.int32]) -> tuple[int, int, int]:
    if len(values) == 0:
        return 0, 0, 0
    return int(values.min()), int(np.median(values)), int(values.max())


def _planned_test(source: Source, opened: dict[str, Items]) -> frozenset[str]:
    """Return the names of the images that thawnet would split off as a test part."""
    if "test" in source.parts:
        return frozenset()
    lists = arrange(replace(source, open_part=opened.__getitem__), split_seed=0)
    assert lists.test is not None
    return frozenset(lists.test().names)


def _groups(pictures: Sequence[Member], seen: _Seen, mirrored: bool, bars: Bars) -> list[Group]:
    """Return all groups of equal and of nearly equal images, worst first."""
    _, first, kind = np.unique(seen.digests, return_index=True, return_inverse=True)
    same = connect(len(pictures), enumerate(first[kind].tolist()))
    among = np.sort(first)
    among = among[seen.shapes[among].min(axis=1) >= LEAST_SIDE]
    among = among[~find_plain(seen.thumbnails[among])]
    with bars("looking for copies", len(among)) as progress:
        near = find_near(seen.thumbnails, among, mirrored, progress)
    links = [*near.rows.tolist(), *((row, other) for row, *others in same for other in others)]
    found = [_group([pictures[row] for row in rows], exact=True) for rows in same]
    for rows, score, flip in _linked(connect(len(pictures), links), near):
        found.append(_group([pictures[row] for row in rows], False, score, flip))
    return sorted(
        found,
        key=lambda group: (
            SCOPES.index(group.scope),
            not group.exact,
            -group.similarity,
            [(picture.part, picture.name) for picture in group.pictures],
        ),
    )


def _linked(groups: list[list[int]], near: NearPairs) -> Iterator[tuple[list[int], float, bool]]:
    """Yield the groups that a near pair holds together, their least score, and if any is mirrored.

    Among several pairs of a group the least is the weakest of those found, so a careful figure.
    """
    home = {row: place for place, rows in enumerate(groups) for row in rows}
    scores: dict[int, float] = {}
    flips: set[int] = set()
    for (row, _), score, flip in zip(near.rows.tolist(), near.scores, near.mirrored, strict=True):
        place = home[row]
        scores[place] = min(scores.get(place, 1.0), float(score))
        if flip:
            flips.add(place)
    for place, score in scores.items():
        yield groups[place], round(score, 3), place in flips


def _group(
    pictures: Sequence[Member], exact: bool, similarity: float = 1.0, mirrored: bool = False
) -> Group:
    """Name the worst that any two of the pictures do."""
    homes = {(picture.part, picture.label) for picture in pictures}
    parts, labels = {part for part, _ in homes}, {label for _, label in homes}
    if any(a[0] != b[0] and a[1] != b[1] for a in homes for b in homes):
        scope: Scope = "parts and classes"
    elif len(parts) > 1:
        scope = "parts"
    else:
        scope = "classes" if len(labels) > 1 else "one class"
    return Group(scope, exact, similarity, mirrored, tuple(pictures))
