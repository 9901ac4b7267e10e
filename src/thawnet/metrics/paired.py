"""Two classifiers on the same images: McNemar's test, and the interval of their difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.columns import aligned
from .accuracy import SIGNIFICANT, interval

SMALLEST_P = 1e-6  # below this a p is not spelt out


@dataclass(frozen=True)
class Pairs:
    """Numbers of images that both classifiers, only A, only B, or neither get right."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def images(self) -> int:
        """Total number of images."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def accuracy_a(self) -> float:
        """Accuracy of A."""
        return (self.both + self.only_a) / self.images

    @property
    def accuracy_b(self) -> float:
        """Accuracy of B."""
        return (self.both + self.only_b) / self.images

    @property
    def difference(self) -> float:
        """Accuracy of B minus that of A, -1 to 1."""
        return (self.only_b - self.only_a) / self.images


def count_pairs(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Pairs:
    """Return the counts of two arrays of hits, (n,) each, of the same images in the same order."""
    return Pairs(
        both=int((a & b).sum()),
        only_a=int((a & ~b).sum()),
        only_b=int((~a & b).sum()),
        neither=int((~a & ~b).sum()),
    )


def mcnemar(pairs: Pairs) -> float:
    """Return the two-sided p of McNemar's exact test that A and B are right equally often.

    Only images that one gets right and the other wrong count. If neither network is better, each
    is A's or B's with even odds, so their number is binomial with p = 1/2. McNemar 1947, "Note on
    the sampling error of the difference between correlated proportions"; recommended for
    classifiers trained once by Dietterich 1998, "Approximate statistical tests for comparing
    supervised classification learning algorithms". The test compares these two networks on these
    images; another seed of the same recipe gives another network.
    """
    from scipy.stats import binomtest

    discordant = pairs.only_a + pairs.only_b
    return float(binomtest(pairs.only_b, discordant, 0.5).pvalue) if discordant else 1.0


def difference_interval(pairs: Pairs) -> tuple[float, float]:
    """Return the 95 % interval of B's accuracy minus A's, both ends in [-1, 1].

    Method 10 of Newcombe 1998, "Improved confidence intervals for the difference between binomial
    proportions based on paired data": the two Wilson intervals combined, corrected for the
    correlation of the pairs. It keeps its coverage with few images and few discordant pairs;
    Wald's interval collapses to a point if there are none. Unlike Tango's, it needs no iteration.
    """
    p_a, p_b, n = pairs.accuracy_a, pairs.accuracy_b, pairs.images
    (low_a, high_a), (low_b, high_b) = interval(p_a, n), interval(p_b, n)
    phi = _correlation(pairs)

    def reach(side_b: float, side_a: float) -> float:
        return math.sqrt(side_b**2 - 2 * phi * side_b * side_a + side_a**2)

    low = pairs.difference - reach(p_b - low_b, high_a - p_a)
    high = pairs.difference + reach(high_b - p_b, p_a - low_a)
    return low, high


def pair_table(pairs: Pairs) -> list[str]:
    """Return the counts as lines of aligned columns."""
    return aligned(
        [
            ("", "B right", "B wrong"),
            ("A right", f"{pairs.both:,}", f"{pairs.only_a:,}"),
            ("A wrong", f"{pairs.only_b:,}", f"{pairs.neither:,}"),
        ]
    )


def winner(pairs: Pairs) -> str | None:
    """Return the better classifier, 'A' or 'B', or None if McNemar's test finds no difference."""
    if mcnemar(pairs) >= SIGNIFICANT:
        return None
    return "B" if pairs.difference > 0 else "A"


def verdict(pairs: Pairs, images: str) -> str:
    """Return the comparison in one line; images: a noun for the images."""
    return f"{headline(pairs)}: {evidence(pairs, images)}"


def headline(pairs: Pairs) -> str:
    """Return which classifier is better, or that no difference was found."""
    best = winner(pairs)
    return f"{best} is better" if best else "no significant difference"


def evidence(pairs: Pairs, images: str) -> str:
    """Return the figures behind the headline, to 0.01 points, which is one image of 10,000."""
    best = winner(pairs)
    low, high = (100 * end for end in difference_interval(pairs))
    a, b, gap = 100 * pairs.accuracy_a, 100 * pairs.accuracy_b, 100 * pairs.difference
    if best == "A":
        a, b, gap, low, high = b, a, -gap, -high, -low
    shares = f"{b:.2f} % against {a:.2f} %" if best else f"A {a:.2f} %, B {b:.2f} %"
    return (
        f"{shares}, difference {gap:.2f} points ({low:.2f} to {high:.2f}), "
        f"McNemar {p_value(mcnemar(pairs))} on {pairs.images:,} {images}"
    )


def p_value(p: float) -> str:
    """Return a p-value as readable text: no power of ten, no false precision.

    >>> p_value(0.0000312), p_value(0.0496), p_value(1e-9)
    ('p = 0.00003', 'p = 0.0496', 'p < 0.000001')
    """
    if p < SMALLEST_P:
        return f"p < {np.format_float_positional(SMALLEST_P)}"
    digits = 3 if p >= 0.01 else 1
    return f"p = {np.format_float_positional(p, digits, fractional=False, trim='-')}"


def _correlation(pairs: Pairs) -> float:
    """Return the phi coefficient; a positive one is shrunk towards 0, as in method 10."""
    hits_a, hits_b = pairs.both + pairs.only_a, pairs.both + pairs.only_b
    margins = hits_a * (pairs.images - hits_a) * hits_b * (pairs.images - hits_b)
    if margins == 0:
        return 0.0
    excess = pairs.both * pairs.neither - pairs.only_a * pairs.only_b
    drawn = max(excess - pairs.images / 2, 0.0) if excess > 0 else excess
    return drawn / math.sqrt(margins)
