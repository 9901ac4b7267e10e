"""The learning rate and epsilon of each step."""

from __future__ import annotations

import dataclasses
import math

import pytest

from thawnet.recipe import Phase
from thawnet.training.schedule import epsilon, rate

PHASE = Phase(train_from="head", epochs=1, lr=0.1, weight_decay=0.01)


def test_one_cycle_rises_then_falls_to_nothing() -> None:
    rates = [rate(PHASE, step, 100) for step in range(100)]
    assert max(rates) == rates[20] == PHASE.lr
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 1e-3 * PHASE.lr
    assert rates[0] == pytest.approx(PHASE.lr / 20)  # no step is wasted
    assert rates[60] == pytest.approx(PHASE.lr / 2)


def test_keras_adds_its_epsilon_before_the_bias_correction() -> None:
    keras = dataclasses.replace(PHASE, optimizer="keras-adam", epsilon=1e-7)
    assert epsilon(keras, 0) == pytest.approx(1e-7 / math.sqrt(0.001))
    assert epsilon(keras, 10_000) == pytest.approx(1e-7, rel=1e-4)
    assert epsilon(PHASE, 0) == PHASE.epsilon
