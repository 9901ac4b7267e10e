"""The order of the confusion matrix."""

from __future__ import annotations

import numpy as np

from thawnet.metrics.confusion import confused_order, confusion_matrix


def test_matrix_counts_classes_by_row() -> None:
    found = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


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
