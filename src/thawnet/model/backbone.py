"""The network as an ordered list of stages, which can be split between any two of them."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.errors import UsageError, WeightsError, first_line
from .chain import HEAD, trace
from .names import require_model

USUAL = "mobilenetv2_100, resnet50 or vit_small_patch16_224"
STRIDE = 32  # pixels; of most networks that take any size
LEAST_PATCH = 8  # pixels; smallest patch of networks that keep one token per patch throughout
RESAMPLED = ("pos_embed", "relative_position_bias_table")
LARGEST_FEATURE = 1e15  # for an ordinary image; squares of features must stay finite
LINEAR_HEAD = "linear_head"  # name in networks without a linear classifier of their own


class Network(nn.Module):
    """A timm backbone with a linear head, as a list of stages.

    A classifier of any other kind, such as a pair of them, is replaced with a linear one. Running
    the stages in order computes the network, so a split is a position in that list. The last stage
    is the head; its input is the pooled features, (n, features). `net` holds the parameters under
    timm's own names.
    """

    def __init__(
        self,
        backbone: str,
        classes: int,
        size: int,
        padding: str = "",
        epsilon: float | None = None,
    ) -> None:
        """Build the network with random weights.

        size: side of its input, in pixels. padding: '' (the model's own) or 'same' (TensorFlow's).
        epsilon: of every batch-norm, None for the model's own.
        Raises UsageError for a model that timm does not know, or that cannot be built with these
        options and a linear classifier, or cannot be cut into stages.
        """
        super().__init__()
        self.backbone = backbone
        self.size = size
        self.net: nn.Module = _build(backbone, classes, size, padding)
        _keep_nothing_of_weights(self.net)
        for module in self.net.modules():
            if epsilon is not None and isinstance(module, _BatchNorm):
                module.eps = epsilon
        self.head_name = next(
            name for name, module in self.net.named_modules() if module is _classifier(self.net)
        )
        try:
            self._chain = trace(self.net, self.head_name, size)
        except Exception as error:  # any of timm's 1,300 models may raise anything
            depends = isinstance(error, fx.proxy.TraceError)
            reason = "what it computes depends on the pixels" if depends else first_line(error)
            raise UsageError(
                f"--backbone '{backbone}' cannot be cut into a frozen and a trained part "
                f"({reason}); choose another, such as {USUAL}"
            ) from error
        _glorot(self.head)

    @property
    def head(self) -> nn.Linear:
        """The classifier, features -> logits."""
        return self.net.get_submodule(self.head_name)  # type: ignore[return-value] # see _build

    @property
    def stages(self) -> list[str]:
        """Names of the stages in order of execution; the last is 'head'."""
        return [stage.name for stage in self._chain.stages]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, (n, classes), for normalised images (n, 3, size, size)."""
        return self.net(images)  # type: ignore[no-any-return] # modules return Any

    # --- layers and stages ----------------------------------------------------------------------

    @property
    def stage_layers(self) -> list[list[str]]:
        """Names of the modules that hold weights, for each stage."""
        return [list(stage.layers) for stage in self._chain.stages]

    @property
    def layers(self) -> list[str]:
        """Names of the modules that hold weights, in order of execution; then 'head'.

        Weights of the network itself, such as a class token, are listed under the name ''.
        """
        names = [layer for stage in self._chain.stages[:-1] for layer in stage.layers]
        return [*dict.fromkeys(names), HEAD]

    def stage_of(self, layer: str) -> int:
        """Return the position of the stage that holds `layer`, one of `layers`."""
        if layer == HEAD:
            return len(self.stages) - 1
        return next(
            position for position, stage in enumerate(self._chain.stages) if layer in stage.layers
        )

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters to train, by name."""
        return {name: value for name, value in self.net.named_parameters() if value.requires_grad}

    @cached_property
    def depths(self) -> dict[str, int]:
        """Number of stages between each parameter and the logits, by name; 0 for the head's."""
        last = len(self.stages) - 1
        depth = {
            layer: last - position
            for position, stage in reversed(list(enumerate(self._chain.stages)))
            for layer in stage.layers
        }
        return {
            name: 0 if name.startswith(f"{self.head_name}.") else depth[name.rpartition(".")[0]]
            for name, _ in self.net.named_parameters()
        }

    @cached_property
    def attention_blocks(self) -> int:
        """Number of attention blocks of a transformer; 0 for networks with any batch-norm."""
        modules = list(self.net.modules())
        if any(isinstance(module, _BatchNorm) for module in modules):
            return 0
        return sum(
            any("Attention" in type(child).__name__ for child in module.children())
            for module in modules
        )

    @cached_property
    def undecayed(self) -> frozenset[str]:
        """Names of parameters exempt from weight decay, such as position embeddings and tokens."""
        names = getattr(self.net, "no_weight_decay", None)
        return frozenset(names()) if callable(names) else frozenset()

    # --- running a part ------------------------------------------------------------------------

    def part(self, first: int, last: int | None = None) -> fx.GraphModule:
        """Return stages first..last (exclusive) as one module that shares their weights.

        The module may overwrite its input if the network has in-place operations.
        """
        return self._chain.part(self.net, first, last)

    @cached_property
    def last_map(self) -> int:
        """Position of the last stage whose input is a feature map, (channels, h, w); 0 if none."""
        return max(
            (
                position
                for position, shape in enumerate(self.shapes)
                if len(shape) == 3 and shape[1] == shape[2] > 1
            ),
            default=0,
        )

    def check(self) -> None:
        """Raise UsageError unless the network runs at its size and gives the same output in stages.

        Raises WeightsError if its features are NaN or exceed LARGEST_FEATURE.
        """
        last = len(self.stages) - 1
        probe = torch.linspace(-1, 1, 3 * self.size * self.size).view(1, 3, self.size, self.size)
        try:
            # Not inference_mode: what a network caches on its first images is used in training.
            with torch.no_grad():
                whole, features = self.eval()(probe.clone()), self.part(0, last)(probe)
                staged = self.part(last)(features)
        except Exception as error:  # any of timm's 1,300 models may raise anything
            raise UsageError(
                f"--backbone '{self.backbone}' cannot take images of {self.size} x {self.size} "
                f"pixels ({first_line(error)}); choose another --size or backbone"
            ) from error
        _ = self.shapes
        most = features.abs().max()
        if not most <= LARGEST_FEATURE:  # true for NaN too
            raise WeightsError(
                f"--weights: the features that they compute reach {most:.0e}, far from any trained "
                "network's; the file is damaged, or not in the format that it states"
            )
        if not torch.allclose(whole, staged, rtol=1e-3, atol=1e-4):
            raise UsageError(
                f"--backbone '{self.backbone}' gives other results when split into stages; "
                "choose another backbone"
            )

    @cached_property
    def coarse(self) -> int:
        """Position of the first stage whose input side is at most 1/16 of the image's."""
        sides = self.sides
        return next(
            (position for position, side in enumerate(sides) if side and side * 16 <= self.size),
            len(sides) - 1,
        )

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one image at the input of each stage, usually (channels, height, width).

        Raises UsageError if a stage's input is not a tensor.
        """
        training = [module for module in self.modules() if module.training]
        self.eval()
        x = torch.zeros(1, 3, self.size, self.size, device=self.head.weight.device)
        with torch.no_grad():
            results = self._chain.part(self.net, 0, None, every=True)(x)
        for module in training:
            module.training = True
        for stage, result in zip(self.stages[1:], results[:-1], strict=True):
            if not isinstance(result, torch.Tensor):
                raise UsageError(
                    f"--backbone '{self.backbone}' hands a {type(result).__name__} to '{stage}', "
                    f"which is not cached; choose another, such as {USUAL}"
                )
        return tuple(tuple(result.shape[1:]) for result in (x, *results[:-1]))

    @cached_property
    def sides(self) -> list[int]:
        """Side of each stage's input map, in pixels; 0 for the first stage and after pooling."""
        sides: list[int] = []
        for position, shape in enumerate(self.shapes):
            # (channels, h, w), (h, w, channels) or (tokens, channels)
            # A class token beside a square of patches does not change the rounded side.
            side = shape[1] if len(shape) == 3 else math.isqrt(shape[0]) if len(shape) == 2 else 0
            sides.append(side if position and side > 1 else 0)
        return sides


def has_fixed_size(backbone: str) -> bool:
    """Return whether a model is built for one input size, as vision transformers are."""
    import timm  # here and below, since importing it takes a second

    config = timm.get_pretrained_cfg(backbone)
    return bool(config is not None and config.fixed_input_size)


def size_step(backbone: str) -> int:
    """Return the step between a model's input sizes, in pixels; 0 if it has only one.

    Vision transformers take any multiple of their patch, since position embeddings are resampled.
    Other models with weights for each position take only their own size. The rest step by STRIDE.
    """
    import timm

    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.fixed_input_size:
        return STRIDE
    published = int(config.input_size[-1])
    try:
        with torch.device("meta"):
            own: Any = timm.create_model(backbone, num_classes=0)
            patch = int(own.patch_embed.patch_size[0])
            other = timm.create_model(backbone, num_classes=0, img_size=published - patch)
    except Exception:  # any of timm's 1,300 models may raise anything
        return 0
    shapes, others = (
        {name: value.shape for name, value in net.state_dict().items()} for net in (own, other)
    )
    of_positions = [name for name in shapes if shapes[name] != others.get(name)]
    resampled = all(name.endswith(RESAMPLED) for name in of_positions)
    return patch if resampled and patch >= LEAST_PATCH else 0


def _build(backbone: str, classes: int, size: int, padding: str) -> nn.Module:
    import timm

    require_model(backbone)
    options: dict[str, Any] = {"pad_type": padding} if padding else {}
    if has_fixed_size(backbone):
        options["img_size"] = size
    try:
        net: nn.Module = timm.create_model(backbone, num_classes=classes, **options)
        if not isinstance(_classifier(net), nn.Linear):
            net = _with_linear_head(timm.create_model(backbone, num_classes=0, **options), classes)
    except Exception as error:  # any of timm's 1,300 models may raise anything
        arguments = "".join(f", {name} {value!r}" for name, value in options.items())
        raise UsageError(
            f"--backbone '{backbone}' cannot be built for {classes} classes{arguments} "
            f"({first_line(error)})"
        ) from error
    return net


def _keep_nothing_of_weights(net: nn.Module) -> None:
    """Stop modules from caching values computed from their weights.

    In evaluation mode the attention of some networks caches its biases until `train` is called.
    Here thawed modules are in evaluation mode while their weights change.
    """
    always = property(lambda _self: True, lambda _self, _mode: None)
    for module in net.modules():
        kind = type(module)
        if kind.train is not nn.Module.train:
            module.__class__ = type(kind.__name__, (kind,), {"training": always})


def _classifier(net: nn.Module) -> Any:
    """Return a network's classifier: a module, or several of them."""
    return getattr(net, LINEAR_HEAD, None) or net.get_classifier()  # type: ignore[operator] # timm's


def _with_linear_head(net: nn.Module, classes: int) -> nn.Module:
    """Add a linear classifier to a network that returns pooled features, and return it."""
    kind = type(net)

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.get_submodule(LINEAR_HEAD)(kind.forward(self, x))
        return logits

    # A subclass, because a wrapping module would change the names of all weights.
    net.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    net.add_module(LINEAR_HEAD, nn.Linear(net.head_hidden_size, classes))  # type: ignore[arg-type]
    return net


def _glorot(head: nn.Linear) -> None:
    """Set Glorot uniform and zero bias, as Keras's Dense (Glorot and Bengio 2010, eq. 16)."""
    limit = math.sqrt(6 / (head.in_features + head.out_features))
    nn.init.uniform_(head.weight, -limit, limit)
    nn.init.zeros_(head.bias)
