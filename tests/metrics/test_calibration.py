"""Calibration: the temperature that made the logits is found, and the error is as defined."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from thawnet.metrics.calibration import calibration_error, fit_temperature

Drawn = tuple[NDArray[np.float32], NDArray[np.int64]]


def drawn(images: int, temperature: float, seed: int = 0) -> Drawn:
    """Draw labels from the softmax of some logits, and return these logits times a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (images, 10))
    odds = np.exp(logits)
    odds /= odds.sum(axis=1, keepdims=True)
    labels = (odds.cumsum(axis=1) < rng.random((images, 1))).sum(axis=1)
    return (temperature * logits).astype(np.float32), labels


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_temperature_that_made_the_logits_is_found(true: float) -> None:
    logits, labels = drawn(5000, true)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.06)


def test_temperature_mends_images_it_was_not_fitted_on() -> None:
    temperature = fit_temperature(*drawn(2500, 3.0))
    logits, labels = drawn(10_000, 3.0, seed=1)
    assert calibration_error(logits, labels) > 0.15
    assert calibration_error(logits, labels, temperature) < 0.02


def test_a_handful_of_images_that_are_all_right_says_little() -> None:
    logits = np.eye(5, dtype=np.float32) * 4
    assert 0.6 < fit_temperature(logits, np.arange(5)) < 1


def test_calibration_error_by_hand() -> None:
    # Four images at a probability of 0.75, two of them right; one sure, and right.
    unsure = [[np.log(3), 0]] * 4
    logits = np.array([*unsure, [50, 0]], dtype=np.float32)
    labels = np.array([0, 0, 1, 1, 0])
    assert calibration_error(logits, labels) == pytest.approx(4 / 5 * 0.25)


def test_fifteen_bins_of_one_width() -> None:
    # Two images at 0.72 and 0.78: bins 11 and 12 of fifteen, and one and the same of ten.
    logits = np.log(np.array([[0.72, 0.28], [0.78, 0.22]], np.float32))
    assert calibration_error(logits, np.array([1, 0])) == pytest.approx((0.72 + 0.22) / 2)
