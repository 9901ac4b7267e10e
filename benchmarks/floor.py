"""The least time that a training step can take on a device, from bytes and operations.

The bytes are those that must move if everything between two layers with weights (batch-norms,
activations, additions) is fused with them. Forward, a layer reads its input and writes its output;
backward, it reads the gradient of its output and its input, and writes the gradient of its input.
The operations are the products of the same three passes. A pass takes at least as long as the
slower of the two at the device's ceilings. These are measured by a copy of large tensors and a
product of large matrices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from thawnet.model.backbone import Network

# Bytes per float32 parameter: weight, two moments and average read and written, gradient read.
STEP_BYTES = 4 * 9
TURNS = 10


class Ceilings(NamedTuple):
    """Limits of a device: bytes and operations (two per multiply-add) per second."""

    bandwidth: float
    rate: float


class Layer(NamedTuple):
    """A convolution or linear layer: elements of an image's input and output, weights, products."""

    inputs: int
    outputs: int
    weights: int
    products: int


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measure a device's ceilings, the best of TURNS."""
    large = device.type == "cuda"
    here = torch.zeros((2**30 if large else 2**27) // dtype.itemsize, dtype=dtype, device=device)
    there = torch.empty_like(here)
    side = 8192 if large else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    moved = 2 * here.numel() * here.itemsize
    return Ceilings(
        bandwidth=moved / _least(lambda: there.copy_(here), device),
        rate=2 * side**3 / _least(lambda: a @ b, device),
    )


def _least(work: Callable[[], Any], device: torch.device) -> float:
    spent = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - begun)
    return min(spent)


def layers(network: Network, split: int, x: torch.Tensor) -> list[Layer]:
    """Return the layers with weights from stage `split` on. x: some input of it, (n, ...)."""
    layers: list[Layer] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        outputs, weights = output[0].numel(), module.weight.numel()
        # Each output value takes one product per weight of its channel.
        products = outputs * weights // len(module.weight)
        layers.append(Layer(inputs[0][0].numel(), outputs, weights, products))

    part = network.part(split)
    with ExitStack() as hooks, torch.inference_mode():
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                hooks.callback(module.register_forward_hook(note).remove)
        part(x)
    return layers


def least_seconds(layers: list[Layer], batch: int, width: int, ceilings: Ceilings) -> float:
    """Return the floor of a step on a batch, in seconds. width: bytes per activation value."""

    def one_pass(moved: int, layer: Layer) -> float:
        return max(moved / ceilings.bandwidth, 2 * batch * layer.products / ceilings.rate)

    total = STEP_BYTES * sum(layer.weights for layer in layers) / ceilings.bandwidth
    for number, layer in enumerate(layers):
        ends, weights = batch * (layer.inputs + layer.outputs) * width, layer.weights * width
        total += one_pass(ends + weights, layer)  # forward
        if number:  # the gradient of the first layer's input is not needed
            total += one_pass(ends + weights, layer)
        # The gradient of the output has just been read.
        total += one_pass(batch * layer.inputs * width + 4 * layer.weights, layer)
    return total
