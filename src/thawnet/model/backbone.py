"""The network as an ordered list of stages: built, frozen, split, folded."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import UsageError, suggest
from . import keras_layers

HEAD = "head"
ALL = "all"
SUPPORTED = (keras_layers.BACKBONE,)


class Network(nn.Module):
    """A timm backbone with a linear head.

    `stages` lists (name, module) in the order of computing; running them one after another is the
    network, so a split is a position in that list. The last stage is the head; its input are the
    pooled features, (n, features). `net` holds the parameters under timm's own names.
    """

    def __init__(self, backbone: str, classes: int, padding: str, epsilon: float) -> None:
        """Build with random weights.

        padding: '' (symmetric) or 'same' (TensorFlow's). epsilon: of every batch-norm.
        Raises UsageError for a backbone that is not known.
        """
        super().__init__()
        if backbone not in SUPPORTED:
            raise UsageError(
                f"--backbone '{backbone}': not supported; {suggest(backbone, SUPPORTED)}"
            )
        self.backbone = backbone
        self.net: nn.Module = timm.create_model(
            backbone, num_classes=classes, pad_type=padding, bn_eps=epsilon
        )
        _glorot(self.head)

    @property
    def head(self) -> nn.Linear:
        """The classifier, features -> logits."""
        return self.net.get_submodule("classifier")  # type: ignore[return-value]

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """(name, module) in the order of computing; the modules are shared, not copied."""
        net = self.net
        blocks = [
            (f"blocks.{outer}.{inner}", block)
            for outer, stage in enumerate(net.get_submodule("blocks").children())
            for inner, block in enumerate(stage.children())
        ]
        return [
            ("stem", _chain(net, "conv_stem", "bn1")),
            *blocks,
            ("conv_head", _chain(net, "conv_head", "bn2", "global_pool")),
            (HEAD, self.head),
        ]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, (n, classes), for normalised images (n, 3, size, size)."""
        return self.net(images)  # type: ignore[no-any-return]

    # --- freezing ------------------------------------------------------------------------------

    @property
    def layers(self) -> list[str]:
        """Names of the layers that hold weights, in the order of computing; then the head."""
        head = {id(module) for module in self.head.modules()}
        return [
            name
            for name, module in self.net.named_modules()
            if next(module.parameters(recurse=False), None) is not None and id(module) not in head
        ] + [HEAD]

    def first_layer(self, train_from: str) -> str:
        """Resolve 'head', 'all', a timm name, or a Keras name or index to a layer in `layers`.

        Raises UsageError with the nearest names.
        """
        layers = self.layers
        if train_from == ALL:
            return layers[0]
        wanted = (
            keras_layers.to_timm(train_from) if self.backbone == keras_layers.BACKBONE else None
        ) or train_from
        for name in layers:
            if name == wanted or name.startswith(f"{wanted}."):
                return name
        near = keras_layers.suggest_layer(train_from, [name for name, _ in self.stages] + layers)
        raise UsageError(f"--train-from '{train_from}': {self.backbone} has no such layer; {near}")

    def split(self, train_from: str) -> int:
        """Return the position of the stage that holds a layer: all before it is frozen."""
        layer = self.first_layer(train_from)
        module = self.head if layer == HEAD else self.net.get_submodule(layer)
        return next(
            place
            for place, (_, stage) in enumerate(self.stages)
            if any(inner is module for inner in stage.modules())
        )

    def thaw(self, train_from: str) -> None:
        """Freeze every layer before this one and thaw the rest.

        Frozen batch-norms keep their statistics because they stay in evaluation mode
        (see `training_mode`).
        """
        layers = self.layers
        thawed = set(layers[layers.index(self.first_layer(train_from)) :])
        for name, module in self.net.named_modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(name in thawed or module is self.head)

    def training_mode(self, batch_norm: str, momentum: float) -> None:
        """Put the thawed layers in training mode and the frozen ones in evaluation mode.

        batch_norm: 'train' lets thawed batch-norms use and update batch statistics with torch's
        `momentum` (1 - Keras's); 'frozen' leaves every batch-norm as it is.
        """
        self.eval()
        for module in self.net.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
                if batch_norm == "train" and any(parameter.requires_grad for parameter in own):
                    # Only the flag of this module: its activation and dropout have none.
                    module.training = True

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters to train, by name."""
        return {name: value for name, value in self.net.named_parameters() if value.requires_grad}

    # --- running a part ------------------------------------------------------------------------

    def part(self, first: int, last: int | None = None) -> nn.Sequential:
        """Return stages first..last (exclusive) as one module that shares their weights."""
        return nn.Sequential(*(stage for _, stage in self.stages[first:last]))


def _chain(net: nn.Module, *names: str) -> nn.Sequential:
    return nn.Sequential(*(net.get_submodule(name) for name in names))


def _glorot(head: nn.Linear) -> None:
    """Glorot uniform and zero bias, as Keras's Dense (Glorot and Bengio 2010, equation 16)."""
    limit = math.sqrt(6 / (head.in_features + head.out_features))
    nn.init.uniform_(head.weight, -limit, limit)
    nn.init.zeros_(head.bias)


# Images that pass through frozen layers at once on a CPU, so that activations stay in its caches:
# in float32 the whole trunk does 1,306 images/s at 32 and 480 at 256 (2 cores, 96 px).
CPU_CHUNK = 32


def frozen_copy(part: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Return a copy for inference: batch-norms folded into convolutions, channels last, `dtype`.

    Folding is exact up to rounding and saves a pass over memory per layer.
    """
    folded = copy.deepcopy(part).eval().requires_grad_(False)
    _fold(folded)
    moved: nn.Module = channels_last(folded.to(device, dtype))
    return moved


def frozen_function(
    part: nn.Module, dtype: torch.dtype, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a frozen copy as a function of activations on `device`, without gradients."""
    copied = frozen_copy(part, dtype, device)

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            chunks = torch.split(x, CPU_CHUNK if device.type == "cpu" else len(x))
            outputs = [copied(_prepared(chunk, dtype)) for chunk in chunks]
            return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    return run


def _prepared(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    x = x.to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def channels_last(module: Any) -> Any:
    """Lay a module's convolutions out channels last, in place: 130 -> 239 images/s on 2 cores."""
    return module.to(memory_format=torch.channels_last)


def _fold(module: nn.Module) -> None:
    children = list(module.named_children())
    for _, child in children:
        _fold(child)
    for (conv_name, conv), (norm_name, norm) in itertools.pairwise(children):
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
        # timm's BatchNormAct2d carries the activation; a plain BatchNorm2d has none.
        setattr(module, norm_name, getattr(norm, "act", nn.Identity()))


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


def mend_strided_depthwise(net: nn.Module) -> None:
    """Replace strided depthwise 3x3 convolutions by `_Decimated`, in place; names stay."""
    for name, module in list(net.named_modules()):
        if (
            isinstance(module, nn.Conv2d)
            and module.stride == (2, 2)
            and module.kernel_size == (3, 3)
            and module.groups == module.in_channels == module.out_channels
            and module.bias is None
        ):
            same = type(module).__name__ == "Conv2dSame"
            net.set_submodule(name, _Decimated(module, same))
