"""Faster networks with the same results: batch-norms folded, channels last."""

from __future__ import annotations

import copy
import itertools
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .depthwise import MendedDepthwise


def frozen_copy(part: fx.GraphModule, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Return a copy for inference: batch-norms folded into convolutions, channels last, `dtype`.

    Folding is exact up to rounding and saves a pass over memory per layer.
    """
    folded = copy.deepcopy(part)
    # Break the cycle of graph and module. Dropped weights would otherwise wait for Python's
    # cycle collector, which tensors do not trigger, so a validation would leave a copy of the tail.
    folded.graph.owning_module = None
    for name, module in list(folded.named_modules()):
        if isinstance(module, MendedDepthwise):
            folded.set_submodule(name, module.plain())
    _fold(folded.eval().requires_grad_(False))
    return channels_last(folded.to(device, dtype))


def channels_last(module: nn.Module) -> nn.Module:
    """Convert a module's convolutions to channels last, in place: 130 -> 239 images/s on 2 cores.

    `Module.to` fails on the five-dimensional masks of Swin transformers.
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
