"""Scores per class, as scikit-learn defines them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from thawnet.metrics.per_class import class_scores, macro_average


def drawn(classes: int, images: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw labels, of which some classes have none, and what they were taken for."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(2, classes - 3), images)
    predicted = np.where(rng.random(images) < 0.5, labels, rng.integers(1, classes, images))
    return labels, predicted


@pytest.mark.parametrize(("classes", "images"), [(2, 5), (7, 40), (7, 3), (100, 3000)])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(classes: int, images: int, seed: int) -> None:
    from sklearn.metrics import precision_recall_fscore_support

    labels, predicted = drawn(classes, images, seed)
    names = [f"class {number}" for number in range(classes)]
    there = np.unique(labels)
    expected = precision_recall_fscore_support(labels, predicted, labels=there, zero_division=0)
    scores = class_scores(labels, predicted, names)
    assert [score.name for score in scores] == [names[place] for place in there]
    rows = [(score.precision, score.recall, score.f1, score.support) for score in scores]
    assert np.allclose(np.array(rows).T, expected)
    mean = macro_average(scores)
    means = precision_recall_fscore_support(
        labels, predicted, labels=there, average="macro", zero_division=0
    )
    assert (mean.precision, mean.recall, mean.f1) == pytest.approx(means[:3])
