"""What a phase becomes on small and on large data."""

from __future__ import annotations

import dataclasses

import pytest

from thawnet.recipe import Phase, load_recipe
from thawnet.training.plan import MOST_TIMES, fit, rounds, steps_per_epoch

PHASE = Phase(
    train_from="head",
    epochs=3,
    lr=0.1,
    min_steps=100,
    max_steps=1000,
    batch_size=256,
    views=2,
    view_images=10_000,
)


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "views"),
    [
        (50_000, 256, 3, 2),
        (1_000_000, 256, 1, 1),
        (800, 100, 13, 12),
        (80, 16, 20, 20),
        (3, 3, 24, 24),
    ],
)
def test_data_decides_batch_epochs_and_views(
    images: int, batch: int, epochs: int, views: int
) -> None:
    fitted = fit(PHASE, images)
    assert (fitted.batch_size, fitted.epochs, fitted.views) == (batch, epochs, views)
    assert fitted.lr == pytest.approx(0.1 * (batch / 256) ** 0.5)


def test_what_fits_already_stays_as_it_is() -> None:
    fitted = fit(PHASE, 50_000)
    assert fitted == PHASE
    assert fit(dataclasses.replace(PHASE, views=0), 80).views == 0


@pytest.mark.parametrize("images", [4, 72, 900, 3500, 45_000, 2_000_000])
def test_quick_does_a_sensible_number_of_steps_on_any_data(images: int) -> None:
    for phase in load_recipe("quick").phases:
        fitted = fit(phase, images)
        steps = fitted.epochs * steps_per_epoch(fitted, images)
        assert steps >= phase.min_steps or fitted.epochs == MOST_TIMES * phase.epochs
        assert steps <= max(phase.max_steps, steps_per_epoch(fitted, images))


@pytest.mark.parametrize(
    ("every", "images", "parts"),
    [
        (0, 1_000_000, 1),
        (20_000, 47_500, 2),
        (20_000, 3_000, 1),
        (20_000, 1_000_000, 50),
        (1, 600, 2),
    ],
)
def test_large_epochs_are_validated_in_parts_of_at_least_a_step(
    every: int, images: int, parts: int
) -> None:
    assert rounds(dataclasses.replace(PHASE, validate_every=every), images) == parts
