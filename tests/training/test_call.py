"""What a call asks for."""

from __future__ import annotations

import pytest

from thawnet.training.call import preset


@pytest.mark.parametrize(
    ("recipe", "device", "resolved"),
    [
        (None, "cpu", "quick"),
        (None, "cuda", "full-gpu"),
        (None, "mps", "full-gpu"),
        ("full", "cpu", "full"),
        ("full", "cuda", "full-gpu"),
        ("full-gpu", "cpu", "full-gpu"),
        ("quick", "cuda", "quick"),
        ("mine.toml", "cuda", "mine.toml"),
    ],
)
def test_device_decides_what_a_recipe_is_by_default(
    recipe: str | None, device: str, resolved: str
) -> None:
    assert preset(recipe, device) == resolved
