"""What was confused with what, as scikit-learn counts it."""

from __future__ import annotations

import numpy as np
import pytest

from thawnet.metrics.confusion import Confusion, confused_order, confusion_matrix, confusions


@pytest.mark.parametrize("seed", range(3))
def test_confusions_are_the_matrix_beside_its_diagonal(seed: int) -> None:
    from sklearn import metrics

    labels, predicted = np.random.default_rng(seed).integers(0, 9, (2, 200))
    names = [f"class {number}" for number in range(9)]
    matrix = metrics.confusion_matrix(labels, predicted, labels=np.arange(9))
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, 9), matrix)
    np.fill_diagonal(matrix, 0)
    pairs = confusions(labels, predicted, names)
    assert {(pair.true, pair.predicted): pair.images for pair in pairs} == {
        (names[row], names[column]): matrix[row, column] for row, column in np.argwhere(matrix)
    }
    counts = [pair.images for pair in pairs]
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
