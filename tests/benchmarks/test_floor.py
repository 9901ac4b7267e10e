"""What a step takes at least: counted from the network's own layers."""

from __future__ import annotations

import pytest
import torch

import floor
from floor import Ceilings, Layer
from thawnet.model.backbone import Network
from thawnet.model.thawing import first_layer


def test_every_layer_with_weights_is_counted() -> None:
    network = Network("mobilenetv2_100", 100, 96).eval()
    layers = floor.layers(network, 0, torch.zeros(2, 3, 96, 96))
    assert len(layers) == 53  # 52 convolutions and the head
    stem, head = layers[0], layers[-1]
    assert stem == Layer(3 * 96 * 96, 32 * 48 * 48, 32 * 27, 32 * 48 * 48 * 27)
    assert head == Layer(1280, 100, 128_000, 128_000)
    # 300 million multiply-adds at 224 px (Sandler et al. 2018, table 4), with 1,000 classes.
    assert sum(layer.products for layer in layers) == pytest.approx(
        300e6 * (96 / 224) ** 2, rel=0.05
    )


def test_layers_behind_a_split_alone_are_counted() -> None:
    network = Network("mobilenetv2_100", 100, 96).eval()
    split = network.stage_of(first_layer(network, "upper"))
    layers = floor.layers(network, split, torch.zeros(2, *network.shapes[split]))
    assert 1 < len(layers) < 53


def test_a_pass_takes_as_long_as_the_slower_of_bytes_and_operations() -> None:
    layers = [Layer(10, 20, 5, 100), Layer(20, 30, 7, 600)]
    slow_memory = Ceilings(bandwidth=1.0, rate=1e12)
    # 4 images of 2 bytes: the optimiser; forward; backward, where the first needs no gradient of
    # its input.
    moved = 36 * 12 + (240 + 10) + (80 + 20) + (400 + 14) * 2 + (160 + 28)
    assert floor.least_seconds(layers, 4, 2, slow_memory) == pytest.approx(moved)
    slow_products = Ceilings(bandwidth=1e12, rate=1.0)
    products = 2 * 4 * (2 * 100 + 3 * 600)
    assert floor.least_seconds(layers, 4, 2, slow_products) == pytest.approx(products)


def test_ceilings_of_this_device_are_within_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "TURNS", 1)
    can = floor.ceilings(torch.device("cpu"), torch.float32)
    assert 1e8 < can.bandwidth < 1e13
    assert 1e8 < can.rate < 1e15
