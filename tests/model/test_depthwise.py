"""Depthwise convolutions mended for training on a CPU."""

from __future__ import annotations

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from thawnet.model.depthwise import MendedDepthwise, mend_depthwise

CHANNELS = 4


def holder(kind: type[nn.Conv2d], side: int, stride: int, padding: int, bias: bool) -> nn.Module:
    torch.manual_seed(side)
    conv = kind(CHANNELS, CHANNELS, side, stride, padding, groups=CHANNELS, bias=bias)
    return nn.Sequential(conv).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("height", [6, 7, 12])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kind", "side", "stride", "padding"),
    [
        (nn.Conv2d, 3, 2, 1),
        (nn.Conv2d, 5, 1, 2),
        (nn.Conv2d, 5, 2, 2),
        (nn.Conv2d, 5, 1, 0),
        (nn.Conv2d, 7, 1, 3),
        (nn.Conv2d, 7, 2, 3),
        (Conv2dSame, 3, 2, 0),
        (Conv2dSame, 5, 2, 0),
    ],
)
def test_a_mended_convolution_gives_the_same_outputs_and_gradients(
    kind: type[nn.Conv2d], side: int, stride: int, padding: int, bias: bool, height: int
) -> None:
    net = holder(kind, side, stride, padding, bias)
    x = torch.randn(2, CHANNELS, height, 9, requires_grad=True)
    plain = net(x)
    upstream = torch.randn_like(plain)
    wanted = torch.autograd.grad(plain, [x, *net.parameters()], upstream)
    names = [name for name, _ in net.named_parameters()]
    mend_depthwise(net)
    assert isinstance(net[0], MendedDepthwise)
    assert [name for name, _ in net.named_parameters()] == names
    mended = net(x)
    assert torch.equal(mended, plain)
    assert torch.equal(net[0].plain()(x), plain)
    for got, value in zip(
        torch.autograd.grad(mended, [x, *net.parameters()], upstream), wanted, strict=True
    ):
        assert torch.allclose(got, value, atol=1e-4)


def test_in_bfloat16_gradients_reach_parameters_in_float32() -> None:
    net = holder(nn.Conv2d, 5, 2, 2, bias=True)
    x = torch.randn(2, CHANNELS, 12, 12)
    found = []
    for mended in (False, True):
        if mended:
            mend_depthwise(net)
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = net(x)
        assert out.dtype == torch.bfloat16
        out.float().square().sum().backward()
        found.append([value.grad.clone() for value in net.parameters()])
    for plain, mended_gradient in zip(*found, strict=True):
        assert mended_gradient.dtype == torch.float32
        assert torch.allclose(plain, mended_gradient, rtol=0.02, atol=0.02 * float(plain.norm()))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),  # fast as it is
        nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, stride=2, padding=1, groups=CHANNELS),
        nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1),
        nn.Conv2d(CHANNELS, CHANNELS, 9, padding=4, groups=CHANNELS),
        nn.Conv2d(CHANNELS, CHANNELS, 5, padding=4, dilation=2, groups=CHANNELS),
        nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, groups=CHANNELS).requires_grad_(False),
    ],
)
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    net = nn.Sequential(conv)
    mend_depthwise(net)
    assert net[0] is conv
