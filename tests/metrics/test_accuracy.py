"""Numbers as they are quoted."""

from __future__ import annotations

import numpy as np
import pytest

from thawnet.metrics.accuracy import balanced_accuracy, interval, quote, standing, top_k
from thawnet.metrics.result import Regression


def test_quote_is_the_contract_line() -> None:
    expected = "test accuracy: 76.54 % (95 % interval 75.70-77.36, 10,000 images)"
    assert quote("test", 0.7654, 10_000) == expected


def test_interval_covers_the_truth_at_its_stated_rate() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for hits in rng.binomial(500, 0.9, 2000):
        low, high = interval(hits / 500, 500)
        covered += low <= 0.9 <= high
    assert 0.93 < covered / 2000 < 0.97


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_interval_stays_inside_and_open_at_the_ends(accuracy: float) -> None:
    low, high = interval(accuracy, 20)
    assert 0 <= low < high <= 1
    assert high - low > 0.1


def test_top_k_and_balanced_accuracy_by_hand() -> None:
    logits = np.array([[3, 2, 1], [1, 3, 2], [3, 1, 2], [3, 2, 1]], dtype=np.float32)
    labels = np.array([0, 2, 1, 0])
    assert top_k(logits, labels, 1) == 0.5
    assert top_k(logits, labels, 2) == 0.75
    assert top_k(logits, labels, 5) == 1.0
    assert balanced_accuracy(logits, labels) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("p", "chance"), [(0.049, False), (0.05, True), (0.3, True)])
def test_a_difference_is_called_chance_from_one_in_twenty_on(p: float, chance: bool) -> None:
    told = standing(0.8, Regression(0.7, (0.6, 0.8), p, 10, 1.0))
    assert told.startswith("this network is 10.00 points better than logistic regression")
    assert ("may be chance" in told) == chance
