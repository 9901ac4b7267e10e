"""The baselines that a run must beat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

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
    fitted = baseline.fit(train, val, 3, ticks.append)
    result = baselines(fitted, 600, 0, pieces(test), np.ones(400, bool))
    regression = result.logistic_regression_on_frozen_features
    assert len(ticks) >= 2
    assert result.majority_class.accuracy == pytest.approx((test[1] == 0).mean())
    assert 0.75 < regression.accuracy < 1
    scale = np.linalg.norm(train[0], axis=1).mean()
    other = LogisticRegression(C=1 / (600 * regression.penalty), max_iter=2000)
    other.fit(train[0] / scale, train[1])
    assert other.score(test[0] / scale, test[1]) == pytest.approx(regression.accuracy, abs=0.006)
    assert regression.interval_95[0] < regression.accuracy < regression.interval_95[1]
    assert regression.training_images == 600
    misses = round(400 * (1 - regression.accuracy))  # all of them only the run is right on
    assert regression.mcnemar_p == pytest.approx(0.5 ** (misses - 1))


def test_without_images_that_validate_one_penalty_is_used() -> None:
    assert baseline.fit(clouds(300, 1), None, 3, lambda done: None).penalty == baseline.PENALTY


def test_ten_thousand_images_at_most_are_learned_from_drawn_from_all() -> None:
    rows = taken(50_000)
    assert len(rows) == len(set(rows.tolist())) == 10_000
    assert rows.min() < 100
    assert rows.max() > 49_900
    assert np.array_equal(rows, taken(50_000))
    assert sorted(taken(300)) == list(range(300))
