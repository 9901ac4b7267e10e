"""The layers that train: --train-from resolved to a layer, which is thawed with all after it."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.errors import UsageError, suggest
from . import keras_layers
from .backbone import Network
from .chain import HEAD

ALL = "all"
UPPER = "upper"
AUTO = "auto"  # UPPER, unless the plan of a run decides otherwise
MIDDLE = "middle"
LEAST_SHARE = 0.1  # of the weights that the upper part must hold


def first_layer(network: Network, train_from: str) -> str:
    """Resolve 'head', 'upper', 'middle', 'all', 'auto', a timm name, a Keras name or index.

    'upper' starts halfway through the stages whose maps have 1/16 of the input's side, which are
    all stages in many vision transformers. 'middle' starts at the stage that reduces the maps to
    that side.
    Raises UsageError with the nearest names.
    """
    layers = network.layers  # the last one is 'head'
    if train_from == HEAD:  # not a norm before it, which timm may count as part of the head
        return HEAD
    if train_from == ALL:
        return layers[0]
    if train_from in (UPPER, AUTO):
        return _upper(network)
    if train_from == MIDDLE:
        return _middle(network)
    target = (
        keras_layers.to_timm(train_from) if network.backbone == keras_layers.BACKBONE else None
    ) or train_from
    for name in layers:
        if name and (name == target or name.startswith(f"{target}.")):
            return name
    known = [*network.stages, *filter(None, layers)]
    near = (
        keras_layers.suggest_layer(train_from, known)
        if network.backbone == keras_layers.BACKBONE
        else suggest(train_from, known)
    )
    raise UsageError(f"--train-from '{train_from}': {network.backbone} has no such layer; {near}")


def thaw(network: Network, layer: str) -> None:
    """Freeze every layer before `layer`, one of `network.layers`, and thaw the rest.

    Frozen batch-norms keep their statistics because they stay in evaluation mode
    (see `training_mode`).
    """
    layers = network.layers
    thawed = set(layers[layers.index(layer) :])
    for name, module in network.net.named_modules():
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(name in thawed or module is network.head)


def thawed_tensors(network: Network, layer: str) -> dict[str, torch.Tensor]:
    """Return copies of all tensors that training from `layer` on may change, by name."""
    layers = network.layers
    thawed = (*layers[layers.index(layer) : -1], network.head_name)
    return {
        name: value.clone()
        for name, value in network.net.state_dict().items()
        if name.rpartition(".")[0] in thawed
    }


def training_mode(network: Network, batch_norm: str, momentum: float) -> None:
    """Put thawed batch-norms in training mode and everything else in evaluation mode.

    batch_norm: 'train' lets thawed batch-norms use and update batch statistics with torch's
    `momentum` (1 - Keras's); 'frozen' leaves every batch-norm as it is.
    """
    network.eval()
    for module in network.net.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm):
            module.momentum = momentum
            if batch_norm == "train" and any(parameter.requires_grad for parameter in own):
                # Only this module's flag: its activation and dropout stay in evaluation mode.
                module.training = True


def _upper(network: Network) -> str:
    sides, stages = network.sides, network.stage_layers
    weighty = [position for position, side in enumerate(sides) if side and stages[position]]
    if not weighty:  # parallel paths to the end: there is no upper part
        return network.layers[0]
    # A network that never gets that coarse uses its coarsest stages.
    target = sides[min(network.coarse, weighty[-1])]
    same = [position for position in weighty if sides[position] == target]
    first = same[len(same) // 2]
    # Where blocks cannot be separated, the part after the last cut may be only a norm.
    while first and _share_from(network, first) < LEAST_SHARE:
        first = max(position for position in range(first) if stages[position] or not position)
    return (stages[first] or network.layers)[0]


def _share_from(network: Network, stage: int) -> float:
    """Return the share of a network's weights, excluding the head, from a stage on."""
    weights: dict[str, int] = {
        name: sum(value.numel() for value in module.parameters(recurse=False))
        for name, module in network.net.named_modules()
        if module is not network.head
    }
    behind = {layer for layers in network.stage_layers[stage:] for layer in layers}
    return sum(weights.get(layer, 0) for layer in behind) / max(1, sum(weights.values()))


def _middle(network: Network) -> str:
    stages = network.stage_layers
    # The stage before may hold no weights, for example a pooling.
    reducing = max((position for position in range(network.coarse) if stages[position]), default=0)
    return stages[reducing][0]
