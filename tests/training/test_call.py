"""What a call asks for."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import timm
import torch

from thawnet import recipes
from thawnet.recipe import TrainOptions
from thawnet.training.call import chosen, preset


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


@pytest.mark.parametrize(
    ("named", "flag", "resolved"),
    [
        (None, None, "resnet18"),
        ("test_resnet", None, "test_resnet"),
        (None, "test_vit", "test_vit"),
    ],
)
def test_weights_choose_the_network_unless_recipe_or_flag_names_one(
    tmp_path: Path, named: str | None, flag: str | None, resolved: str
) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pth")
    recipe = resources.files(recipes).joinpath("quick.toml").read_text()
    first = f'backbone = "{named}"\n' if named else ""
    (tmp_path / "mine.toml").write_text(first + recipe)
    options = TrainOptions(
        data="photos",
        recipe=str(tmp_path / "mine.toml"),
        weights=str(tmp_path / "w.pth"),
        backbone=flag,
        device="cpu",
    )
    assert chosen(options)[0].backbone == resolved
