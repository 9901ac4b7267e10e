"""Weights: found, read, checked against the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.runs import TINY, write_random_weights
from thawnet.core.errors import WeightsError
from thawnet.model.backbone import Network
from thawnet.model.weights import fill, load_weights
from thawnet.net.http import FetchError


def filled(path: Path) -> Network:
    network = Network(TINY, 5, 96, "same")
    fill(network, load_weights(str(path), TINY), str(path))
    return network


def test_file_fills_every_layer_but_the_head(tiny_weights: Path) -> None:
    network = filled(tiny_weights)
    tensors = load_file(tiny_weights)
    for key, value in network.net.state_dict().items():
        if key in tensors:
            assert torch.equal(value, tensors[key])
        else:
            assert key.startswith("classifier.") or key.endswith("num_batches_tracked")


def test_file_says_padding_epsilon_and_normalisation(tmp_path: Path) -> None:
    path = write_random_weights(tmp_path / "w.safetensors", TINY, "same")
    weights = load_weights(str(path), TINY)
    assert (weights.padding, weights.epsilon) == ("same", 1e-5)
    assert (weights.mean, weights.std) == ((0.5,) * 3, (0.5,) * 3)


def test_weights_of_another_architecture_are_refused_with_the_first_misfit(tmp_path: Path) -> None:
    import timm

    path = tmp_path / "resnet.safetensors"
    made = timm.create_model("test_resnet")
    tensors = {key: value.contiguous() for key, value in made.state_dict().items()}
    save_file(tensors, path)
    with pytest.raises(WeightsError) as caught:
        filled(path)
    assert "do not fit backbone 'test_efficientnet'" in str(caught.value)
    assert "\n" not in str(caught.value)
    save_file(tensors, path, metadata={"architecture": "test_resnet"})
    with pytest.raises(WeightsError, match="are of test_resnet, not of test_efficientnet; choose"):
        filled(path)


def test_one_tensor_of_another_shape_is_named(tiny_weights: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_weights)
    tensors["conv_stem.weight"] = torch.zeros(16, 3, 3, 3)
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=r"conv_stem.weight is \(16, 3, 3, 3\), expected \(24"):
        filled(tmp_path / "odd.safetensors")


def test_nan_in_weights_is_refused(tiny_weights: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_weights)
    tensors["bn1.weight"][3] = torch.nan
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match=r"tensor 'bn1.weight' holds NaN"):
        filled(tmp_path / "nan.safetensors")


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"PK\x03\x04 a zip"])
def test_what_is_not_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"not a readable file of safetensors|PyTorch reads no plain tensors"
    ):
        load_weights(str(path), TINY)


def test_missing_file_lists_the_choices() -> None:
    with pytest.raises(
        WeightsError, match="no such file; give one of safetensors, PyTorch or Keras"
    ):
        load_weights("nowhere.safetensors", TINY)


def test_bundled_network_is_finite() -> None:
    weights = load_weights("bundled", "mobilenetv2_100")
    network = Network("mobilenetv2_100", 10, 96, weights.padding, weights.epsilon)
    fill(network, weights, "bundled")
    assert weights.licence == "Apache-2.0"


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_weights_fill_any_backbone_but_its_head(tmp_path: Path, backbone: str) -> None:
    import timm

    made = timm.create_model(backbone, num_classes=11)
    tensors = {key: value.contiguous() for key, value in made.state_dict().items()}
    path = tmp_path / "w.safetensors"
    save_file(tensors, path, metadata={"input_size": "160"})
    weights = load_weights(str(path), backbone)
    assert weights.size == 160
    network = Network(backbone, 4, 160)
    fill(network, weights, "w")
    for key, value in network.net.state_dict().items():
        if not key.startswith(f"{network.head_name}."):
            assert torch.equal(value, tensors[key])


def test_tag_of_weights_is_no_other_architecture(tiny_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(load_file(tiny_weights), path, metadata={"architecture": "test_resnet"})
    assert load_weights(str(path), "test_resnet.r160_in1k").architecture == "test_resnet"
    with pytest.raises(WeightsError, match="are of test_resnet, not of test_vit"):
        load_weights(str(path), "test_vit")


def test_padding_that_no_network_has_is_the_files_fault(tmp_path: Path) -> None:
    import timm

    tensors = {key: each.contiguous() for key, each in timm.create_model(TINY).state_dict().items()}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"pad_type": "reflect"})
    with pytest.raises(WeightsError, match="metadata is not understood \\(pad_type 'reflect'\\)"):
        load_weights(str(tmp_path / "w.safetensors"), TINY)


@pytest.mark.parametrize(("backbone", "advised"), [("mobilenetv2_100", True), ("resnet18", False)])
def test_embedded_network_is_advised_where_it_fits(
    monkeypatch: pytest.MonkeyPatch, backbone: str, advised: bool
) -> None:
    def unreachable(_load: object) -> None:
        raise FetchError("no route")

    monkeypatch.setattr("thawnet.model.weights.from_hub", unreachable)
    with pytest.raises(WeightsError, match="could not be loaded") as told:
        load_weights("imagenet", backbone)
    assert ("--weights bundled" in str(told.value)) == advised
