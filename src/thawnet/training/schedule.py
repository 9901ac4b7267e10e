"""The learning rate and the optimiser's epsilon at each step of a phase."""

from __future__ import annotations

import math

from ..recipe import Phase


def epsilon(phase: Phase, step: int) -> float:
    """Return the optimiser's epsilon for a step, from 0.

    Keras adds it before the bias correction of the second moment (the "epsilon hat" of Kingma and
    Ba 2015, end of section 2), torch after it; dividing by the correction makes them equal. In the
    first steps the difference is thirtyfold, and visible in the loss.
    """
    if phase.optimizer == "keras-adam":
        return phase.epsilon / math.sqrt(1 - 0.999 ** (step + 1))
    return phase.epsilon


def rate(phase: Phase, step: int, steps: int) -> float:
    """Return the learning rate of a step, 0 to steps - 1."""
    if phase.schedule == "constant":
        return phase.lr
    rising = max(1, round(phase.warmup * steps))
    if step < rising:
        return phase.lr * (step + 1) / rising
    return phase.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
