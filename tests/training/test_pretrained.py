"""What is decided before the first step."""

from __future__ import annotations

import pytest

from thawnet.model.backbone import STRIDE, size_step
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
    assert natural_size(weights, short_side, STRIDE) == size


@pytest.mark.parametrize(("short_side", "size"), [(8, 96), (28, 128), (32, 160), (224, 224)])
def test_recipe_may_show_small_images_larger(short_side: int, size: int) -> None:
    assert natural_size(224, short_side, STRIDE, small=160) == size


def test_size_that_a_model_is_built_for_stays() -> None:
    assert natural_size(224, 32, 0) == 224


@pytest.mark.parametrize(
    ("weights", "short_side", "patch", "size"),
    [(518, 3000, 14, 252), (518, 128, 14, 154), (256, 32, 16, 128), (224, 3000, 16, 224)],
)
def test_transformer_sees_a_multiple_of_its_patch_and_no_more_than_pays(
    weights: int, short_side: int, patch: int, size: int
) -> None:
    assert natural_size(weights, short_side, patch) == size


@pytest.mark.parametrize(
    ("backbone", "step"),
    [
        ("mobilenetv2_100", 32),
        ("vit_small_patch14_dinov2", 14),
        ("vit_small_patch16_dinov3", 16),
        ("swin_tiny_patch4_window7_224", 0),
        ("mixer_s16_224", 0),
    ],
)
def test_sizes_of_a_backbone_follow_from_its_weights(backbone: str, step: int) -> None:
    assert size_step(backbone) == step
