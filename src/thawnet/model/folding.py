"""Networks made faster without another number: batch-norms folded, channels last, decimation."""

from __future__ import annotations

import copy
import itertools
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def frozen_copy(part: fx.GraphModule, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Return a copy for inference: batch-norms folded into convolutions, channels last, `dtype`.

    Folding is exact up to rounding and saves a pass over memory per layer.
    """
    folded = copy.deepcopy(part)
    # A graph and its module refer to each other: dropped, the weights would wait for Python's cycle
    # collector, which tensors do not hurry, and every validation would add a copy of the tail.
    folded.graph.owning_module = None
    for name, module in list(folded.named_modules()):
        if isinstance(module, _Decimated):
            folded.set_submodule(name, module.strided())
    _fold(folded.eval().requires_grad_(False))
    return channels_last(folded.to(device, dtype))


def channels_last(module: nn.Module) -> nn.Module:
    """Lay a module's convolutions out channels last, in place: 130 -> 239 images/s on 2 cores.

    `Module.to` would do, but for the masks of five dimensions that Swin transformers hold.
    """
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.dim() == 4:
            # Not `contiguous`, which leaves the strides of 1 x 1 convolutions as they are.
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return module


def _fold(part: fx.GraphModule) -> None:
    uses = Counter(node.target for node in part.graph.nodes if node.op == "call_module")
    for node in part.graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = (part.get_submodule(str(step.target)) for step in (before, node))
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        if uses[before.target] > 1 or uses[node.target] > 1:
            continue
        part.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
        # timm's BatchNormAct2d carries the activation; a plain BatchNorm2d has none.
        part.set_submodule(str(node.target), getattr(norm, "act", nn.Identity()))


class _Decimated(nn.Module):
    """A 3x3 depthwise convolution of stride 2, computed at stride 1 and decimated.

    The same numbers as the strided one. In torch 2.15 the backward of the strided form in bf16 on
    a CPU is pathological: with it a step of the tail takes 393 ms instead of 182 (batch 256).
    """

    def __init__(self, conv: nn.Conv2d, same: bool) -> None:
        super().__init__()
        self.weight = conv.weight
        self.same = same

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # 'same' pads only at the end where the side is even, so its outputs sit on odd places.
        top, left = ((1 - side % 2) if self.same else 0 for side in x.shape[-2:])
        full = nn.functional.conv2d(x, self.weight, padding=1, groups=len(self.weight))
        return full[..., top::2, left::2]

    def strided(self) -> nn.Conv2d:
        """Return the convolution that this stands for, sharing its weight: faster forwards."""
        from timm.layers.conv2d_same import Conv2dSame

        kind, padding = (Conv2dSame, 0) if self.same else (nn.Conv2d, 1)
        channels = len(self.weight)
        conv: nn.Conv2d = kind(
            channels, channels, 3, stride=2, padding=padding, groups=channels, bias=False
        )
        conv.weight = self.weight
        return conv


def mend_strided_depthwise(net: nn.Module) -> None:
    """Replace thawed strided depthwise 3x3 convolutions by `_Decimated`, in place; names stay."""
    for name, module in list(net.named_modules()):
        if (
            isinstance(module, nn.Conv2d)
            and module.stride == (2, 2)
            and module.kernel_size == (3, 3)
            and module.groups == module.in_channels == module.out_channels
            and module.bias is None
            and module.weight.requires_grad
        ):
            same = type(module).__name__ == "Conv2dSame"
            net.set_submodule(name, _Decimated(module, same))
