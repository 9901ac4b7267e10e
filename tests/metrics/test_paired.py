"""McNemar's test and the interval of a paired difference, against other programs."""

from __future__ import annotations

import numpy as np
import pytest

from thawnet.metrics.paired import Pairs, count_pairs, difference_interval, mcnemar

# Both, only A, only B, neither. One for each way the correlation is taken: positive, drawn to 0,
# and negative. CAVO's interval is the one that the tests of R's contingencytables quote (data of
# Cavo et al. 2012); the other two were worked out by that package's formula.
CAVO = Pairs(59, 16, 6, 80)
BENTUR = Pairs(1, 7, 1, 12)
CONTRARY = Pairs(36, 2, 12, 0)


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    [(CAVO, -0.1186, -0.0046), (BENTUR, -0.5069, -0.0256), (CONTRARY, 0.0569, 0.3404)],
)
def test_interval_is_that_of_newcombes_method_10(pairs: Pairs, low: float, high: float) -> None:
    assert difference_interval(pairs) == pytest.approx((low, high), abs=5e-5)


# As statsmodels 0.15 gives them: mcnemar(..., exact=True).
@pytest.mark.parametrize(
    ("pairs", "p"),
    [
        (BENTUR, 0.0703125),
        (CAVO, 0.052478790283203125),
        (Pairs(101, 59, 121, 33), 4.4344492637551645e-06),
        (Pairs(14, 0, 5, 22), 0.0625),
    ],
)
def test_mcnemar_is_the_exact_binomial_one(pairs: Pairs, p: float) -> None:
    assert mcnemar(pairs) == pytest.approx(p, rel=1e-9)


def test_mcnemar_without_a_discordant_image_tells_nothing() -> None:
    assert mcnemar(Pairs(90, 0, 0, 10)) == 1.0


def test_exchanging_the_runs_turns_the_sign_and_keeps_p() -> None:
    turned = Pairs(CAVO.both, CAVO.only_b, CAVO.only_a, CAVO.neither)
    low, high = difference_interval(CAVO)
    assert turned.difference == -CAVO.difference
    assert difference_interval(turned) == pytest.approx((-high, -low))
    assert mcnemar(turned) == pytest.approx(mcnemar(CAVO))


@pytest.mark.parametrize(
    "pairs",
    [
        Pairs(50, 0, 0, 0),
        Pairs(0, 0, 0, 50),
        Pairs(0, 0, 50, 0),
        Pairs(0, 50, 0, 0),
        Pairs(1, 0, 0, 0),
    ],
)
def test_interval_stays_inside_and_open_at_the_ends(pairs: Pairs) -> None:
    low, high = difference_interval(pairs)
    assert -1 <= low <= pairs.difference <= high <= 1
    assert high - low > 0.05


@pytest.mark.parametrize("shares", [(0.70, 0.06, 0.09, 0.15), (0.96, 0.01, 0.02, 0.01)])
def test_interval_covers_the_truth_at_its_stated_rate(shares: tuple[float, ...]) -> None:
    drawn = np.random.default_rng(0).multinomial(400, shares, 3000)
    truth = shares[2] - shares[1]
    ends = [difference_interval(Pairs(*map(int, counts))) for counts in drawn]
    covered = np.mean([low <= truth <= high for low, high in ends])
    assert 0.94 < covered < 0.98


def test_pairs_are_counted_image_by_image() -> None:
    a = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    b = np.array([1, 0, 0, 1, 0, 0], dtype=bool)
    pairs = count_pairs(a, b)
    assert pairs == Pairs(both=1, only_a=2, only_b=1, neither=2)
    assert (pairs.accuracy_a, pairs.accuracy_b) == (3 / 6, 2 / 6)
    assert pairs.difference == pytest.approx(-1 / 6)
