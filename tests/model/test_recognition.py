"""Weights that do not say their network: it is told by their shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torchvision.models import get_model

from support.runs import TINY
from thawnet.core.errors import WeightsError
from thawnet.model.recognition import KNOWN, backbone_of, recognised

Tensors = dict[str, torch.Tensor]


def shapes_of(name: str, **options: object) -> Tensors:
    with torch.device("meta"):
        return dict(timm.create_model(name, **options).state_dict())


@pytest.mark.parametrize("name", KNOWN)
def test_known_networks_are_models_of_timm(name: str) -> None:
    assert timm.is_model(name)


@pytest.mark.parametrize(
    "name",
    [
        *("mobilenetv2_100", "resnet18", "resnet50", "convnext_tiny", "vit_small_patch14_dinov2"),
        *("vit_small_patch14_reg4_dinov2", "vit_small_patch16_224", "vit_small_patch16_dinov3"),
    ],
)
@pytest.mark.parametrize("classes", [0, 7])
def test_a_network_is_told_whatever_its_classes_and_names(name: str, classes: int) -> None:
    tensors = shapes_of(name, num_classes=classes)
    assert recognised(tensors) == [name]
    assert recognised(
        {f"module.{number}": each for number, each in enumerate(tensors.values())}
    ) == [name]


@pytest.mark.parametrize(
    ("torchvisions", "name"),
    [("mobilenet_v2", "mobilenetv2_100"), ("vit_b_16", "vit_base_patch16_224")],
)
def test_other_libraries_shapes_are_told(torchvisions: str, name: str) -> None:
    with torch.device("meta"):
        tensors = dict(get_model(torchvisions, weights=None).state_dict())
    assert recognised(tensors) == [name]


def test_the_mask_token_of_dinov2_is_no_other_network() -> None:
    tensors = shapes_of("vit_small_patch14_dinov2", num_classes=0)
    assert recognised(tensors | {"mask_token": torch.zeros(1, 384)}) == ["vit_small_patch14_dinov2"]


def test_networks_that_shapes_do_not_tell_apart_are_asked_for(tmp_path: Path) -> None:
    torch.save(timm.create_model("tf_mobilenetv3_small_100").state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match="mobilenetv3_small_100 or tf_mobilenetv3_small_100: choose one with"
    ):
        backbone_of(tmp_path / "w.pth")


def test_nothing_is_told_of_what_is_not_known(tmp_path: Path) -> None:
    assert recognised(shapes_of(TINY)) == []
    (tmp_path / "w.pth").write_bytes(b"no weights")
    assert backbone_of(tmp_path / "w.pth") == ""
    assert backbone_of(tmp_path / "nowhere") == ""
