"""The baselines that a run must beat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from thawnet.training import baseline
from thawnet.training.baseline import Labelled, baselines, taken


def clouds(count: int, seed: int) -> Labelled:
    """Return three overlapping clouds in 40 dimensions, half of the images in the first class."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, count, p=[0.5, 0.25, 0.25])
    centres = np.random.default_rng(0).normal(0, 0.4, (3, 40))
    return (centres[labels] + rng.normal(0, 1, (count, 40))).astype(np.float32), labels


def pieces(images: Labelled) -> Iterator[Labelled]:
    """Cut images into pieces of 64, which can be read once."""
    for first in range(0, len(images[1]), 64):
        yield images[0][first : first + 64], images[1][first : first + 64]


def test_baselines_are_those_of_scikit_learn_and_of_counting() -> None:
    ticks: list[int] = []
    train, val, test = clouds(600, 1), clouds(200, 2), clouds(400, 3)
    result = baselines(train, 0, pieces(val), pieces(test), np.ones(400, bool), ticks.append)
    regression = result.logistic_regression_on_frozen_features
    assert ticks == [1, 1, 1]
    assert result.majority_class.accuracy == pytest.approx((test[1] == 0).mean())
    assert 0.75 < regression.accuracy < 1
    scores = []
    for strength in baseline.STRENGTHS:
        model = baseline.regression(*train, strength)
        scores.append((model.score(*val), -strength, model.score(*test)))
    assert -max(scores)[1] == regression.C
    assert regression.accuracy == max(scores)[2]
    assert regression.interval_95[0] < regression.accuracy < regression.interval_95[1]
    assert regression.training_images == 600
    misses = round(400 * (1 - regression.accuracy))  # all of them only the run is right on
    assert regression.mcnemar_p == pytest.approx(0.5 ** (misses - 1))


def test_the_measured_images_choose_nothing() -> None:
    """Without a validation part one penalty is used, whatever it would give on the test part."""
    train, test, own = clouds(300, 1), clouds(200, 3), np.ones(200, bool)
    result = baselines(train, 0, None, [test], own, lambda done: None)
    assert baseline.STRENGTHS[1] == result.logistic_regression_on_frozen_features.C
    other = baselines(train, 0, [clouds(100, 2)], [test], own, lambda done: None)
    again = baselines(train, 0, [clouds(100, 2)], [clouds(200, 9)], own, lambda done: None)
    one, another = (fitted.logistic_regression_on_frozen_features.C for fitted in (other, again))
    assert one == another


def test_ten_thousand_images_at_most_are_learnt_from_drawn_from_all() -> None:
    rows = taken(50_000)
    assert len(rows) == len(set(rows.tolist())) == 10_000
    assert rows.min() < 100
    assert rows.max() > 49_900
    assert np.array_equal(rows, taken(50_000))
    assert sorted(taken(300)) == list(range(300))
