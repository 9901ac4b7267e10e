"""What trains, what is frozen, where the network is split, and that shortcuts are exact."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from thawnet.core.errors import UsageError
from thawnet.model.backbone import Network
from thawnet.model.folding import frozen_copy
from thawnet.model.keras_layers import keras_layers
from thawnet.model.thawing import first_layer, thaw, training_mode


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    built = Network("mobilenetv2_100", 100, 96, "same")
    for module in built.net.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that folding must honour
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return built.eval()


def test_keras_index_100_thaws_the_parameters_of_the_design(network: Network) -> None:
    thaw(network, first_layer(network, "100"))
    counts = {name: value.numel() for name, value in network.trainable().items()}
    head = sum(count for name, count in counts.items() if name.startswith("classifier"))
    assert head == 128_100
    assert sum(counts.values()) - head == 1_861_440
    assert next(iter(counts)) == "blocks.4.1.conv_dw.weight"
    assert network.stages[network.stage_of(first_layer(network, "100"))] == "blocks.4.1"


@pytest.mark.parametrize(
    ("name", "layer", "stage"),
    [
        ("head", "head", "head"),
        ("all", "conv_stem", "conv_stem"),
        ("0", "conv_stem", "conv_stem"),
        ("3", "blocks.0.0.conv_dw", "blocks.0.0"),
        ("block_11_expand_relu", "blocks.4.1.conv_dw", "blocks.4.1"),
        ("blocks.3.1", "blocks.3.1.conv_pw", "blocks.3.1"),
        ("blocks.5", "blocks.5.0.conv_pw", "blocks.5.0"),
        ("blocks.4.1.bn3", "blocks.4.1.bn3", "blocks.4.1"),
        ("conv_head", "conv_head", "conv_head"),
        ("Conv_1_bn", "bn2", "bn2"),
        ("upper", "blocks.4.0.conv_pw", "blocks.4.0"),
        ("middle", "blocks.3.0.conv_pw", "blocks.3.0"),
        ("153", "head", "head"),
    ],
)
def test_a_layer_is_found_by_timm_and_keras_name(
    network: Network, name: str, layer: str, stage: str
) -> None:
    assert first_layer(network, name) == layer
    assert network.stages[network.stage_of(first_layer(network, name))] == stage


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("block_99", "mobilenetv2_100 has no such layer; the nearest are 'block_9_"),
        ("blocks.3.9", "the nearest are 'blocks.3."),
        ("154", "has layers 0 to 153"),
        ("", "has no such layer"),
    ],
)
def test_unknown_layer_suggests_the_nearest(network: Network, name: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        first_layer(network, name)
    assert told in str(caught.value)


def test_unknown_backbone_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="no such model; did you mean 'mobilenetv2_100'"):
        Network("mobilenet_v2", 10, 96)


def test_every_layer_with_weights_stands_once_in_the_keras_table(network: Network) -> None:
    in_table = [timm for _, timm in keras_layers() if timm is not None]
    assert [*in_table, "head"] == network.layers


def test_stages_in_a_row_are_the_network(network: Network) -> None:
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(network.part(0)(x), network(x))
        middle = network.part(0, 9)(x)
        assert torch.equal(network.part(9)(middle), network(x))


def test_folded_batch_norms_compute_the_same(network: Network) -> None:
    x = torch.randn(4, 3, 96, 96)
    folded = frozen_copy(network.part(0), torch.float32, torch.device("cpu"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        expected = network(x)
        assert torch.allclose(folded(x), expected, rtol=1e-3, atol=1e-3 * expected.abs().max())


def test_a_frozen_copy_is_freed_when_it_is_dropped(network: Network) -> None:
    gc.disable()
    try:
        folded = frozen_copy(network.part(0), torch.float32, torch.device("cpu"))
        weights = [weakref.ref(each) for each in folded.parameters()]
        assert len(weights) > 50
        del folded
        assert not any(each() is not None for each in weights)
    finally:
        gc.enable()


def test_only_thawed_batch_norms_use_batch_statistics(network: Network) -> None:
    thaw(network, first_layer(network, "100"))
    training_mode(network, "train", 0.001)
    moving = {
        name
        for name, module in network.net.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.training
    }
    assert "blocks.4.1.bn2" in moving
    assert "blocks.4.1.bn1" not in moving
    assert "bn1" not in moving
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.001}
    training_mode(network, "frozen", 0.001)
    assert not any(module.training for module in network.net.modules())


def test_head_starts_glorot_uniform_with_zero_bias() -> None:
    head = Network("mobilenetv2_100", 100, 96, "same").head
    limit = (6 / 1380) ** 0.5
    assert head.weight.abs().max() <= limit
    assert head.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.02)
    assert not head.bias.any()
