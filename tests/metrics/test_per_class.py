"""Scores per class: as scikit-learn defines them, and what was confused with what."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from thawnet.metrics.per_class import (
    Confusion,
    class_scores,
    confused_order,
    confusion_matrix,
    confusions,
    macro_average,
)

Drawn = tuple[NDArray[np.int64], NDArray[np.int64]]


def drawn(classes: int, images: int, seed: int) -> Drawn:
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
    wanted = precision_recall_fscore_support(labels, predicted, labels=there, zero_division=0)
    scores = class_scores(labels, predicted, names)
    assert [score.name for score in scores] == [names[place] for place in there]
    found = [(score.precision, score.recall, score.f1, score.support) for score in scores]
    assert np.allclose(np.array(found).T, wanted)
    mean = macro_average(scores)
    means = precision_recall_fscore_support(
        labels, predicted, labels=there, average="macro", zero_division=0
    )
    assert (mean.precision, mean.recall, mean.f1) == pytest.approx(means[:3])


@pytest.mark.parametrize("seed", range(3))
def test_confusions_are_the_matrix_beside_its_diagonal(seed: int) -> None:
    from sklearn import metrics

    labels, predicted = drawn(9, 200, seed)
    names = [f"class {number}" for number in range(9)]
    matrix = metrics.confusion_matrix(labels, predicted, labels=np.arange(9))
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, 9), matrix)
    np.fill_diagonal(matrix, 0)
    found = confusions(labels, predicted, names)
    assert {(each.true, each.predicted): each.images for each in found} == {
        (names[row], names[column]): matrix[row, column] for row, column in np.argwhere(matrix)
    }
    counts = [each.images for each in found]
    assert counts == sorted(counts, reverse=True)


def test_equally_frequent_confusions_are_in_the_order_of_the_classes() -> None:
    labels, predicted = np.array([2, 0, 1, 1, 0]), np.array([0, 2, 2, 2, 0])
    assert confusions(labels, predicted, "abc") == (
        *(Confusion("b", "c", 2), Confusion("a", "c", 1), Confusion("c", "a", 1)),
    )
    assert confusions(labels, labels, "abc") == ()


def test_confused_classes_lie_beside_each_other() -> None:
    # Classes 0 and 5, 1 and 4, 2 and 3 are taken for each other, nothing else is.
    matrix = np.diag([80] * 6)
    for one, other in ((0, 5), (1, 4), (2, 3)):
        matrix[one, other] = matrix[other, one] = 20
    order = confused_order(matrix).tolist()
    assert sorted(order) == list(range(6))
    for one, other in ((0, 5), (1, 4), (2, 3)):
        assert abs(order.index(one) - order.index(other)) == 1


def test_matrix_without_confusions_or_images_has_an_order() -> None:
    for matrix in (np.diag([3, 4, 5]), np.zeros((4, 4), np.int64), np.eye(2, dtype=np.int64)):
        assert sorted(confused_order(matrix).tolist()) == list(range(len(matrix)))
