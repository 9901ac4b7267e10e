"""Equal and nearly equal pictures: candidates by hash, then a check of small thumbnails.

Two pictures are *exactly* the same when their decoded, upright pixels are. They are *nearly* the
same when small grey thumbnails agree everywhere: stored again, resized, recoloured, made grey,
cropped by a few per cent or mirrored. A photo of the same thing from another viewpoint is a
different picture, and so is a tight crop.

1. Hash: the signs of 64 low frequencies of the thumbnail's cosine transform (a perceptual hash,
   Zauner 2010). Frequencies that are constant along rows or columns are left out: every horizon
   has them. The hash of a mirrored picture differs from the picture's by a constant.
2. Candidates: multi-probe locality-sensitive hashing (Lv et al. 2007). A table is keyed by about
   log2(n) bits of the hash, so that a bucket holds about one picture. Each picture is compared with
   its own bucket and with those it would fall into if its least certain bits were flipped. Time
   grows as n log n, even for a set of look-alikes: only part of a crowded bucket is examined.
3. Check: the thumbnails, shifted by up to a pixel, must agree in structure (SSIM's contrast and
   structure term, Wang et al. 2004) in nine of ten windows that have any.

Everything is deterministic. For 60,000 pictures: 61 MB of thumbnails and 15 MB of frequencies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # pixels a side of a thumbnail

# Chosen by eye on CIFAR-100 and the flowers. Of 96 pairs between 0.6 and 0.7, about 90 are the same
# picture and the others the same product photographed alike; of 96 above 0.7, all are the same
# picture. Of 96 between 0.55 and 0.6, 20 are not.
SIMILAR = 0.6
# Short side in pixels below which copies and look-alikes cannot be distinguished (8 x 8 digits).
LEAST_SIDE = 16
# Standard deviation in grey levels below which a thumbnail is plain: one colour, or a gradient.
PLAIN = 2.0

LEAST_WINDOWS = 0.2  # share of the windows that must hold structure for a pair to be judged

# With these, the search finds 97 % of the similar pairs in CIFAR-100 that an exhaustive comparison
# finds.
TABLES = 6
UNCERTAIN = 6
CROWD = 32  # pictures examined in one bucket, at most
ENOUGH = 8  # candidates that a picture takes from one table, the most certain buckets first
MOST_APART = 18  # bits of 64 in which candidates may differ
LEAST_ALIKE = 0.75  # cosine of two pictures' frequencies; loses 1 % of the pairs, spares 97 %

_WAVES = 8  # frequencies 1 to 8 each way
_CHUNK = 512  # thumbnails at a time: twice as fast, as they stay in the CPU's cache


class NearPairs(NamedTuple):
    """Pairs of nearly equal pictures, sorted."""

    rows: NDArray[np.int64]
    """(m, 2) positions, first < second."""
    scores: NDArray[np.float32]
    """(m,), above SIMILAR, at most 1."""
    mirrored: NDArray[np.bool_]
    """(m,), whether one is the other's mirror image."""


def thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """Reduce an image to (SIDE, SIDE) grey, whatever its proportions, so that any two compare."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def find_plain(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which thumbnails, (n, SIDE, SIDE), are plain, (n,): one colour, or a gradient."""
    plain = np.zeros(len(thumbnails), dtype=bool)
    for rows in _chunks(len(thumbnails)):
        spread = _centred(thumbnails[rows].astype(np.float32)).std(axis=(1, 2))
        plain[rows] = spread < PLAIN
    return plain


def find_near(
    thumbnails: NDArray[np.uint8],
    among: NDArray[np.int64],
    mirrored: bool,
    progress: Callable[[int], None],
) -> NearPairs:
    """Find pairs of nearly equal pictures.

    thumbnails: (n, SIDE, SIDE). among: the positions to compare, ascending; leave out plain and
    tiny ones, and all but one of equal ones. mirrored: find mirror images too. progress: called
    with the number of further `among` that are done.
    """
    waves = _frequencies(thumbnails, among)
    steps = iter(np.diff(np.linspace(0, len(among), TABLES * (1 + mirrored) + 1).astype(int)))
    rows, scores, flips = [], [], []
    for flip in (False, True) if mirrored else (False,):
        pairs = among[_candidates(waves, flip, lambda: progress(int(next(steps))))]
        agreement = _compare(thumbnails, pairs, flip)
        similar = agreement > SIMILAR
        rows.append(pairs[similar])
        scores.append(agreement[similar])
        flips.append(np.full(int(similar.sum()), flip))
    near = NearPairs(np.concatenate(rows), np.concatenate(scores), np.concatenate(flips))
    order = np.lexsort((near.mirrored, -near.scores, near.rows[:, 1], near.rows[:, 0]))
    # A picture that is its own mirror image is found both ways; the better score is kept.
    repeated = (np.diff(near.rows[order], axis=0) == 0).all(axis=1)
    once = order[np.append(np.ones(min(1, len(order)), dtype=bool), ~repeated)]
    return NearPairs(*(values[once] for values in near))


def connect(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the groups of positions 0 to count - 1 that are connected by pairs, each sorted."""
    parent = list(range(count))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    for left, right in pairs:
        low, high = sorted((root(left), root(right)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for position in range(count):
        groups.setdefault(root(position), []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        yield slice(start, start + _CHUNK)


def _centred(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract row and column medians from (n, h, w), which leaves two-dimensional structure.

    Unlike the mean, the median of a row is not changed by an object on a plain wall.
    """
    rest = images - np.median(images, axis=2, keepdims=True)
    centred: NDArray[np.float32] = rest - np.median(rest, axis=1, keepdims=True)
    return centred


def _frequencies(thumbnails: NDArray[np.uint8], among: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return frequencies 1 to 8 of the cosine transform both ways, scaled to length 1, (n, 64)."""
    angle = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    basis = np.cos(np.arange(1, _WAVES + 1)[:, None] * angle).astype(np.float32)  # (8, SIDE)
    waves = np.empty((len(among), _WAVES**2), dtype=np.float32)
    for rows in _chunks(len(among)):
        images = thumbnails[among[rows]].astype(np.float32)
        waves[rows] = (basis @ images @ basis.T).reshape(len(images), -1)
    lengths = np.linalg.norm(waves, axis=1, keepdims=True)
    waves /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return waves


def _candidates(
    waves: NDArray[np.float32], flip: bool, table_done: Callable[[], None]
) -> NDArray[np.int64]:
    """Return pairs of similar rows of `waves`, (m, 2), first < second, that share a bucket."""
    count = len(waves)
    bits = int(np.clip(np.ceil(np.log2(max(count, 2))), 8, 24))
    across = np.arange(_WAVES**2) % _WAVES + 1
    # Mirroring changes the sign of the odd horizontal frequencies.
    other_way = (across % 2 == 1) & flip
    hashes = _pack(waves > 0)
    probe_hashes = hashes ^ _pack(other_way[None])
    # Tables draw from the 36 lowest frequencies: higher ones do not survive a slight crop.
    down = np.arange(_WAVES**2) // _WAVES + 1
    lowest = np.argsort(across + down, kind="stable")[:36]
    codes = [np.empty(0, dtype=np.int64)]
    choices = sorted(range(2**UNCERTAIN), key=int.bit_count)  # the fewest flips first
    for table in range(TABLES):
        room = np.full(count, ENOUGH)
        chosen = np.random.default_rng(table).permutation(lowest)[:bits]
        weights = 1 << np.arange(len(chosen), dtype=np.int64)
        values = waves[:, chosen]
        keys = (values > 0) @ weights
        probes = keys ^ (other_way[chosen] @ weights)
        by_key = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[by_key], np.arange(2**bits + 1))
        unsure = weights[np.argsort(np.abs(values), axis=1, kind="stable")[:, :UNCERTAIN]]
        for choice in choices:
            bucket = probes ^ (unsure @ (choice >> np.arange(UNCERTAIN) & 1))
            sizes = np.minimum(starts[bucket + 1] - starts[bucket], CROWD) * (room > 0)
            left = np.repeat(np.arange(count), sizes)
            right = by_key[np.repeat(starts[bucket], sizes) + _ranks(sizes)]
            near = np.bitwise_count(probe_hashes[left] ^ hashes[right]) <= MOST_APART
            near &= left != right
            left, right = left[near], right[near]
            taken = np.bincount(left, minlength=count)
            first = _ranks(taken) < room[left]
            room -= taken
            low, high = np.minimum(left, right)[first], np.maximum(left, right)[first]
            codes.append(low * count + high)
        table_done()
    pairs = np.stack(np.divmod(np.unique(np.concatenate(codes)), max(count, 1)), axis=1)
    alike = np.zeros(len(pairs), dtype=bool)
    sign = np.where(other_way, -1, 1).astype(np.float32)
    for rows in _chunks(len(pairs)):
        left, right = pairs[rows].T
        alike[rows] = np.einsum("nw,nw->n", waves[left] * sign, waves[right]) > LEAST_ALIKE
    return pairs[alike]


def _ranks(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, 2, ... within each of consecutive runs of these sizes."""
    starts = np.cumsum(sizes) - sizes
    ranks: NDArray[np.int64] = np.arange(sizes.sum()) - np.repeat(starts, sizes)
    return ranks


def _pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack (n, 64) bits into (n,) words."""
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _compare(
    thumbnails: NDArray[np.uint8], pairs: NDArray[np.int64], flip: bool
) -> NDArray[np.float32]:
    """Return the agreement of the thumbnails of pairs (m, 2), (m,): 1 for the same picture."""
    agreement = np.empty(len(pairs), dtype=np.float32)
    inner = SIDE - 2
    for rows in _chunks(len(pairs)):
        left, right = (thumbnails[pairs[rows, side]].astype(np.float32) for side in (0, 1))
        left, right = _centred(left), _centred(right[:, :, ::-1] if flip else right)
        right = _standard(right[:, 1:-1, 1:-1])
        best = np.full(len(left), -np.inf, dtype=np.float32)
        shifted = np.empty_like(right)
        for down in range(3):
            for across in range(3):
                view = _standard(left[:, down : down + inner, across : across + inner])
                correlation = (view * right).mean(axis=(1, 2))
                better = correlation > best
                best[better], shifted[better] = correlation[better], view[better]
        agreement[rows] = _agreement(shifted, right)
    return agreement


def _standard(images: NDArray[np.float32]) -> NDArray[np.float32]:
    centred: NDArray[np.float32] = images - images.mean(axis=(1, 2), keepdims=True)
    centred /= np.maximum(centred.std(axis=(1, 2), keepdims=True), PLAIN)
    return centred


def _agreement(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the value of SSIM's contrast and structure term that nine in ten windows reach, (n,).

    left, right: (n, 30, 30), mean 0, variance 1. Windows in which neither has structure are left
    out; if nearly all are, as with a speck on a wall, the result is 0.
    """
    mean_left, mean_right = _window_means(left), _window_means(right)
    covariance = _window_means(left * right) - mean_left * mean_right
    variance_left = _window_means(left**2) - mean_left**2
    variance_right = _window_means(right**2) - mean_right**2
    steady = np.float32(0.02)  # so that noise in weak windows does not decide
    term = (2 * covariance + steady) / (variance_left + variance_right + steady)
    empty = np.maximum(variance_left, variance_right) < 0.05
    speck = (~empty).mean(axis=1) < LEAST_WINDOWS
    term[empty] = np.nan
    term[speck] = 0
    reached: NDArray[np.float32] = np.nanquantile(term, 0.1, axis=1).astype(np.float32)
    return reached


def _window_means(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the means of windows of 6 x 6, 3 apart, of (n, 30, 30): (n, 81)."""
    count, side, _ = images.shape
    tiles = images.reshape(count, side // 3, 3, side // 3, 3).mean(axis=(2, 4))  # (n, 10, 10)
    sums = tiles[:, 1:, 1:] + tiles[:, :-1, 1:] + tiles[:, 1:, :-1] + tiles[:, :-1, :-1]
    means: NDArray[np.float32] = sums.reshape(count, -1) / 4
    return means
