"""What a phase becomes on data of a given size: batch, learning rate, epochs, views."""

from __future__ import annotations

import dataclasses
import math

from ..recipe import Phase

NAMES = ("head", "fine-tune")  # of the two phases
# A dozen photos are learnt by heart long before 300 steps.
MOST_TIMES = 8


def steps_per_epoch(phase: Phase, images: int) -> int:
    """Return the optimiser steps of one epoch."""
    if phase.drop_last:
        return max(1, images // phase.batch_size)
    return math.ceil(images / phase.batch_size)


def rounds(phase: Phase, images: int) -> int:
    """Return the parts of an epoch, as equal as its steps allow, with a validation behind each."""
    wanted = images // phase.validate_every if phase.validate_every else 1
    return max(1, min(wanted, steps_per_epoch(phase, images)))


def scaled(phase: Phase, batch: int) -> Phase:
    """Return the phase with another batch, and a learning rate that has the same effect.

    It goes with the root of the batch, as Adam asks (Malladi et al. 2022, "On the SDEs and scaling
    rules for adaptive gradient algorithms").
    """
    rate = phase.lr * math.sqrt(batch / phase.batch_size)
    return dataclasses.replace(phase, batch_size=batch, lr=rate)


def fit(phase: Phase, images: int) -> Phase:
    """Return the phase with the values it takes on so many training images.

    The batch is at most an eighth of the images, but 16, or all of fewer images, are never too
    many; the learning rate follows, see `scaled`. Epochs rise until `min_steps` are reached, at
    most MOST_TIMES over, or fall, not below 1, to stay within `max_steps`. Cached views rise while
    they are within `view_images` in all; an epoch shows one, so there are never more than epochs.
    """
    fitted = scaled(phase, min(phase.batch_size, images, max(16, images // 8)))
    steps = steps_per_epoch(fitted, images)
    more = min(MOST_TIMES * phase.epochs, math.ceil(phase.min_steps / steps))
    epochs = max(phase.epochs, more)
    if phase.max_steps:
        epochs = max(1, min(epochs, phase.max_steps // steps))
    views = phase.views
    if views:
        views = min(epochs, max(views, phase.view_images // images))
    return dataclasses.replace(fitted, epochs=epochs, views=views)
