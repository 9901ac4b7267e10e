"""What is decided before the first step."""

from __future__ import annotations

import pytest

from thawnet.training.pretrained import natural_size


@pytest.mark.parametrize(
    ("weights", "short_side", "size"),
    [
        (224, 8, 96),
        (224, 32, 128),
        (224, 64, 128),
        (96, 32, 96),
        (224, 128, 160),
        (224, 180, 224),
        (224, 3000, 224),
        (96, 500, 96),
    ],
)
def test_input_size_follows_the_weights_within_what_the_images_show(
    weights: int, short_side: int, size: int
) -> None:
    assert natural_size(weights, short_side, fixed=False) == size


@pytest.mark.parametrize(("short_side", "size"), [(8, 96), (28, 128), (32, 160), (224, 224)])
def test_recipe_may_show_small_images_larger(short_side: int, size: int) -> None:
    assert natural_size(224, short_side, fixed=False, small=160) == size


def test_size_that_a_model_is_built_for_stays() -> None:
    assert natural_size(224, 32, fixed=True) == 224
