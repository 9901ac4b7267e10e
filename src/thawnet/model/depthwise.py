"""Depthwise convolutions with fast bfloat16 gradients on a CPU.

For a depthwise convolution, oneDNN (torch 2.15) has fast kernels for the gradient of the input at
stride 1 and for that of 3 x 3 weights. Its other kernels are up to 150 times slower, so all other
gradients are computed by way of the fast ones. Measurements: docs/experiments.md.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

TILE = 3  # side of the weights whose gradient has a fast kernel
LARGEST = 7  # side of the weights; larger ones would take too many tiles
INPUT, WEIGHT = (True, False), (False, True)


def mend_depthwise(net: nn.Module) -> None:
    """Replace thawed depthwise convolutions whose gradients are slow, in place; names stay."""
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d) and _is_slow(module):
            net.set_submodule(name, MendedDepthwise(module))


def _is_slow(conv: nn.Conv2d) -> bool:
    side, stride = conv.kernel_size[0], conv.stride[0]
    return (
        1 < conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (side, side)
        and conv.stride == (stride, stride)
        and conv.dilation == (1, 1)
        and conv.padding in ((0, 0), (side // 2, side // 2))
        and TILE <= side <= LARGEST
        and side % 2 == 1
        and (stride > 1 or side > TILE)
        and conv.weight.requires_grad
    )


class MendedDepthwise(nn.Module):
    """A faster depthwise convolution: the same outputs, and the same gradients up to rounding."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding = conv.stride[0], int(conv.padding[0])
        self.same = type(conv).__name__ == "Conv2dSame"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve images or activations of shape (n, channels, h, w)."""
        from timm.layers.padding import pad_same

        if self.same:
            x = pad_same(x, list(self.weight.shape[-2:]), [self.stride, self.stride])
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        out: torch.Tensor = _Depthwise.apply(x, weight, bias, self.stride, self.padding)
        return out

    def plain(self) -> nn.Conv2d:
        """Return an ordinary convolution that shares these weights."""
        from timm.layers.conv2d_same import Conv2dSame

        kind = Conv2dSame if self.same else nn.Conv2d
        channels, _, side, _ = self.weight.shape
        conv: nn.Conv2d = kind(
            *(channels, channels, side, self.stride, self.padding),
            groups=channels,
            bias=self.bias is not None,
        )
        conv.weight, conv.bias = self.weight, self.bias
        return conv


class _Depthwise(torch.autograd.Function):
    """The convolution itself. x: (n, channels, h, w). weight: (channels, 1, side, side)."""

    @staticmethod
    def forward(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, padding: int
    ) -> torch.Tensor:
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, weight, bias, ctx.stride, ctx.padding = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        return (
            _of_input(gradient, x, weight, ctx.stride, ctx.padding) if of_x else None,
            _of_weight(gradient, x, weight, ctx.stride, ctx.padding) if of_weight else None,
            gradient.sum((0, 2, 3)) if ctx.has_bias and of_bias else None,
            None,
            None,
        )


def _of_input(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int
) -> torch.Tensor:
    """Return the input's gradient, at stride 1 from output gradients interleaved with zeros."""
    if stride > 1:
        height, width = (side + 2 * padding - len(weight[0, 0]) + 1 for side in x.shape[-2:])
        spread = torch.zeros(
            (len(x), len(weight), height, width), dtype=x.dtype, device=x.device
        ).contiguous(memory_format=torch.channels_last)
        spread[..., ::stride, ::stride] = gradient
        gradient = spread
    return _backward(gradient, x, weight, stride=1, padding=padding, of=INPUT)


def _of_weight(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int
) -> torch.Tensor:
    """Return the gradient of the weights, computed tile by tile, each as a small convolution."""
    side = weight.shape[-1]
    if side == TILE:
        return _backward(gradient, x, weight, stride=stride, padding=padding, of=WEIGHT)
    padded = F.pad(x, (padding,) * 4)
    height, width = ((outputs - 1) * stride + TILE for outputs in gradient.shape[-2:])
    whole = torch.empty_like(weight)
    for top, left in product(range(0, side - 1, TILE - 1), repeat=2):
        part = padded[..., top : top + height, left : left + width]
        tile = (..., slice(top, top + TILE), slice(left, left + TILE))
        part = part.contiguous(memory_format=torch.channels_last)
        whole[tile] = _backward(gradient, part, weight[tile], stride=stride, padding=0, of=WEIGHT)
    return whole


def _backward(
    *tensors: torch.Tensor, stride: int, padding: int, of: tuple[bool, bool]
) -> torch.Tensor:
    """Return the gradient that `of` selects; tensors: output gradient, input, weights."""
    channels = len(tensors[2])
    strides, paddings = [stride] * 2, [padding] * 2
    found = torch.ops.aten.convolution_backward(
        *tensors, None, strides, paddings, [1, 1], False, [0, 0], channels, [*of, False]
    )
    result: torch.Tensor = found[of.index(True)]
    return result
