"""The audit of a data set: its contents, its damaged images and its duplicates."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import DataError, ImageError
from ..core.memory import available_cores
from ..data.items import PARTS, Items, Raw, Source, Watch, unwatched
from ..data.listing import read_or_reason
from ..data.parallel import blocks, in_order
from ..data.reading import AS_IT_IS, Reading
from ..data.shares import Shares
from ..data.sources.open import open_source
from ..data.splits import TrainTest, arrange, divide
from ..image.decode import Stored, decode_stored
from ..image.preprocess import CUT
from .contents import SCOPES, Audit, Group, Member, Part, Scope
from .duplicates import LEAST_SIDE, SIDE, connect, find_near, find_plain, thumbnail
from .findings import judge

BLOCK = 8  # images a thread reads at a time, as for a store


def inspect(
    data: str, data_dir: Path | None = None, size: int = 96, reading: Reading = AS_IT_IS
) -> Audit:
    """Audit DATA, in any form that `thawnet train` takes.

    size: side of the network's input in pixels. reading: how to read DATA if its form leaves a
    choice. Raises DataError if DATA cannot be opened.
    """
    return audit(open_source(data, data_dir, asked=reading), size)


def audit(source: Source, size: int, watch: Watch = unwatched) -> Audit:
    """Audit every part of a source, including the test part: nothing is trained or chosen by it.

    About 1 kB is kept of each image, however large it is. The 60,000 of CIFAR-100 take half a
    minute on two cores, and 150 MB on top of the source's own memory.
    """
    source.require_train()
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
    total = sum(map(len, opened.values()))
    thumbnails = np.empty((total, SIDE, SIDE), np.uint8)  # of all parts, to avoid copies
    parts: list[Part] = []
    pictures: list[Member] = []
    readable: list[_Readable] = []
    for name, items in opened.items():
        part, images = _measure(
            name, items, source.classes, size, thumbnails[len(pictures) :], watch
        )
        parts.append(part)
        pictures += [
            Member(name, source.classes[items.labels[row]], items.names[row]) for row in images.rows
        ]
        readable.append(images)
    everything = _Readable(*map(np.concatenate, zip(*readable, strict=True)))
    groups = _groups(pictures, everything, thumbnails[: len(pictures)], source.mirror_safe, watch)
    usable = replace(source, parts=frozenset(opened), open_part=opened.__getitem__)
    lists = arrange(usable, Shares())
    split_off = {} if unusable else _split_off(usable, lists)  # training refuses them as they are
    test = frozenset(split_off["test"].names) if "test" in split_off else frozenset[str]()
    unjudged = Audit(
        name=source.name,
        classes=source.classes,
        size=size,
        parts=tuple(parts),
        split_off={part: len(images) for part, images in split_off.items()},
        folded=lists.folded,
        straddling=sum(
            len({picture.name in test for picture in group.pictures if picture.part == "train"}) > 1
            for group in groups
        ),
        groups=tuple(groups),
        notes=source.notes,
        unusable=tuple(unusable),
    )
    return replace(unjudged, findings=tuple(judge(unjudged)))


class _Readable(NamedTuple):
    """The n readable images of a part."""

    rows: NDArray[np.int64]
    """Their positions in the part."""
    digests: NDArray[np.void]
    """Hashes of their pixels, V16."""
    shapes: NDArray[np.int32]
    """Width and height, (n, 2)."""


class _Look(NamedTuple):
    stored: Stored
    stored_bytes: int
    digest: bytes
    thumbnail: NDArray[np.uint8]


def _looks(items: Items, advance: Callable[[int], None]) -> Iterator[_Look | str]:
    """Yield the facts of each image, or why it cannot be read."""

    def work(rows: range) -> list[_Look | str]:
        # Read all before decoding any: out of order, shards are read again from a group's start.
        return [_look(raw) for raw in [read_or_reason(items, row) for row in rows]]

    for block in in_order(work, blocks(len(items), BLOCK), available_cores()):
        yield from block
        advance(len(block))


def _look(raw: Raw | str) -> _Look | str:
    if isinstance(raw, str):
        return raw
    if isinstance(raw, bytes):
        try:
            image, stored = decode_stored(raw)
        except ImageError as error:
            return str(error)
    else:
        image = Image.fromarray(raw)
        stored = Stored("pixels", image.mode, image.size)
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    digest.update(image.tobytes())
    size = len(raw) if isinstance(raw, bytes) else raw.nbytes
    return _Look(stored, size, digest.digest(), thumbnail(image))


def _measure(
    name: str,
    items: Items,
    classes: Sequence[str],
    size: int,
    thumbnails: NDArray[np.uint8],
    watch: Watch,
) -> tuple[Part, _Readable]:
    """Read one part; return its statistics, and what is compared to find duplicates.

    thumbnails: receives those of the readable images, (n, SIDE, SIDE), from its first row on.
    """
    modes, formats = Counter[str](), Counter[str]()
    animated, broken = list[str](), list[tuple[str, str]]()
    rows, shapes = list[int](), list[tuple[int, int]]()
    digests = bytearray()
    total = turned = 0
    with watch(f"reading {name}", len(items)) as advance:
        for row, look in enumerate(_looks(items, advance)):
            if isinstance(look, str):
                broken.append((items.names[row], look))
                continue
            thumbnails[len(rows)] = look.thumbnail
            rows.append(row)
            shapes.append(look.stored.size)
            digests += look.digest
            modes[look.stored.mode] += 1
            formats[look.stored.format] += 1
            total += look.stored_bytes
            turned += look.stored.turned
            if look.stored.animated:
                animated.append(items.names[row])
    images = _Readable(
        np.array(rows, np.int64),
        np.frombuffer(digests, "V16"),
        np.array(shapes, np.int32).reshape(-1, 2),
    )
    counts = np.bincount(items.labels[images.rows], minlength=len(classes)).tolist()
    short = images.shapes.min(axis=1)
    part = Part(
        name=name,
        images=len(items),
        stored_bytes=total,
        counts=dict(zip(classes, counts, strict=True)),
        width=_spread(images.shapes[:, 0]),
        height=_spread(images.shapes[:, 1]),
        smaller=int((short < size).sum()),
        cut=int((images.shapes.max(axis=1) > CUT * short).sum()),
        tiny=int((short < LEAST_SIDE).sum()),
        modes=dict(modes.most_common()),
        formats=dict(formats.most_common()),
        turned=turned,
        animated=tuple(animated),
        plain=tuple(items.names[row] for row in images.rows[find_plain(thumbnails[: len(rows)])]),
        broken=tuple(broken),
    )
    return part, images


def _spread(values: NDArray[np.int32]) -> tuple[int, int, int]:
    if len(values) == 0:
        return 0, 0, 0
    return int(values.min()), int(np.median(values)), int(values.max())


def _split_off(source: Source, lists: TrainTest) -> dict[str, Items]:
    """Return the images that thawnet would split off train, for each part that the data lacks."""
    if lists.folded or lists.test is None:
        return {}
    parts = {"val": divide(lists.train, lists.val, Shares())[1]} if lists.val is None else {}
    return parts if "test" in source.parts else {**parts, "test": lists.test()}


def _groups(
    pictures: Sequence[Member],
    images: _Readable,
    thumbnails: NDArray[np.uint8],
    mirrored: bool,
    watch: Watch,
) -> list[Group]:
    """Return all groups of equal and nearly equal images, worst first."""
    _, first, kind = np.unique(images.digests, return_index=True, return_inverse=True)
    same = connect(len(pictures), enumerate(first[kind].tolist()))
    among = np.sort(first)
    among = among[images.shapes[among].min(axis=1) >= LEAST_SIDE]
    among = among[~find_plain(thumbnails[among])]
    with watch("looking for copies", len(among)) as advance:
        near = find_near(thumbnails, among, mirrored, advance)
    groups = [_group([pictures[row] for row in rows], exact=True) for rows in same]
    links = [*near.rows.tolist(), *((row, other) for row, *others in same for other in others)]
    home = {row: rows for rows in connect(len(pictures), links) for row in rows}
    # The near pairs of each group, by the group's first row.
    pairs: dict[int, list[int]] = {}
    for pair, row in enumerate(near.rows[:, 0].tolist()):
        pairs.setdefault(home[row][0], []).append(pair)
    for first_row, members in pairs.items():
        # The least similar pair of the group, which is a conservative figure.
        similarity = round(float(near.scores[members].min()), 3)
        flip = bool(near.mirrored[members].any())
        groups.append(_group([pictures[row] for row in home[first_row]], False, similarity, flip))
    return sorted(
        groups,
        key=lambda group: (
            SCOPES.index(group.scope),
            not group.exact,
            -group.similarity,
            [(picture.part, picture.name) for picture in group.pictures],
        ),
    )


def _group(
    pictures: Sequence[Member], exact: bool, similarity: float = 1.0, mirrored: bool = False
) -> Group:
    """Return a group of pictures, whose scope is the worst of any two of them."""
    homes = {(picture.part, picture.label) for picture in pictures}
    parts, labels = {part for part, _ in homes}, {label for _, label in homes}
    if any(a[0] != b[0] and a[1] != b[1] for a in homes for b in homes):
        scope: Scope = "parts and classes"
    elif len(parts) > 1:
        scope = "parts"
    else:
        scope = "classes" if len(labels) > 1 else "one class"
    return Group(scope, exact, similarity, mirrored, tuple(pictures))
