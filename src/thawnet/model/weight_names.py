"""Translation of other libraries' weight names to timm's."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from .names import TORCHVISION, without_tag

if TYPE_CHECKING:
    from .backbone import Network

Tensors = dict[str, torch.Tensor]

_TORCHVISION_VIT = (
    (r"class_token", "cls_token"),
    (r"conv_proj\.", "patch_embed.proj."),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.", r"blocks.\1.norm\2."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.", r"blocks.\1.mlp.fc1."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.", r"blocks.\1.mlp.fc2."),
    (r"encoder\.ln\.", "norm."),
    (r"heads\.head\.", "head."),
)
# transformers' ViT and DINOv2, without the prefix `vit.` or `dinov2.`. In timm, query, key and
# value are one tensor.
_TRANSFORMERS = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layer\.(\d+)\.(?:layernorm_before|norm1)\.", r"blocks.\1.norm1."),
    (r"encoder\.layer\.(\d+)\.(?:layernorm_after|norm2)\.", r"blocks.\1.norm2."),
    (r"encoder\.layer\.(\d+)\.(?:intermediate\.dense|mlp\.fc1)\.", r"blocks.\1.mlp.fc1."),
    (r"encoder\.layer\.(\d+)\.(?:output\.dense|mlp\.fc2)\.", r"blocks.\1.mlp.fc2."),
    (r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"layernorm\.", "norm."),
)
_ATTENTION = r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)"
_LEFT_OUT = ("embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias")


def readings(network: Network, tensors: Tensors) -> Iterator[Tensors]:
    """Yield the tensors under each set of names that may fit the network, the likeliest first."""
    bare = _without_prefix(network, tensors)
    forms = [tensors] if bare is tensors else [tensors, bare]
    yield from forms
    for form in forms:
        yield _as_timm_loads(network, form)
    for prefix in ("", "vit.", "dinov2.", "dinov2_with_registers."):
        below = {
            key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)
        }
        if any(re.fullmatch(_ATTENTION, key) for key in below):
            yield _as_timm_loads(network, _from_transformers(below))
    if "encoder.pos_embedding" in bare:
        yield _as_timm_loads(network, _renamed(bare, _TORCHVISION_VIT))
    ordered = _by_order(network, bare)
    if ordered is not None:
        yield ordered


def _without_prefix(network: Network, tensors: Tensors) -> Tensors:
    """Strip the prefix before the network's names, such as `module.` from parallel training."""
    own = list(network.net.state_dict())
    prefixes = {key[: -len(own[0])] for key in tensors if key.endswith(f".{own[0]}")}
    if not prefixes:
        return tensors
    prefix = max(prefixes, key=lambda each: sum(f"{each}{name}" in tensors for name in own))
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _as_timm_loads(network: Network, tensors: Tensors) -> Tensors:
    """Return tensors converted by timm's own checkpoint filter, or unchanged if none applies.

    The filter resamples position embeddings to the network's size, and knows the names of some
    original releases.
    """
    import timm

    module = sys.modules[timm.model_entrypoint(without_tag(network.backbone)).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        return dict(convert(dict(tensors), network.net))
    except Exception:  # it expects certain releases, and may raise anything for others
        return tensors


def _from_transformers(tensors: Tensors) -> Tensors:
    renamed: Tensors = {}
    parts: dict[tuple[str, str], Tensors] = {}
    for key, value in tensors.items():
        if attention := re.fullmatch(_ATTENTION, key):
            parts.setdefault((attention[1], attention[3]), {})[attention[2]] = value
        elif key not in _LEFT_OUT:
            renamed[key] = value
    renamed = _renamed(renamed, _TRANSFORMERS)
    for (block, kind), each in parts.items():
        if len(each) == 3:
            renamed[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(
                [each[name] for name in ("query", "key", "value")]
            )
    return renamed


def _renamed(tensors: Tensors, table: tuple[tuple[str, str], ...]) -> Tensors:
    """Return tensors with the start of each name replaced by the first rule that matches."""

    def new(key: str) -> str:
        changed = (re.subn(f"^{pattern}", name, key) for pattern, name in table)
        return next((name for name, count in changed if count), key)

    return {new(key): value for key, value in tensors.items()}


def _by_order(network: Network, tensors: Tensors) -> Tensors | None:
    """Return torchvision's weights matched to timm's names by order, None if that fails.

    Both libraries list the same layers in the same order under different names. The match is
    verified: torchvision's own network with these weights must compute the same features.
    """
    own = network.net.state_dict()
    head = f"{network.head_name}."
    names = [key for key in own if not key.startswith(head)]
    backbone = without_tag(network.backbone)
    theirs = next((name for name, timms in TORCHVISION.items() if timms == backbone), backbone)
    try:
        from torchvision.models import get_model  # type: ignore[attr-defined] # no stub has it

        reference = get_model(theirs, weights=None).eval()
        reference.load_state_dict(tensors)
    except (ImportError, ValueError, RuntimeError):
        return None
    linear = [name for name, each in reference.named_modules() if isinstance(each, nn.Linear)]
    given = [key for key in tensors if not key.startswith(f"{linear[-1]}.")]
    if [own[name].numel() for name in names] != [tensors[key].numel() for key in given]:
        return None
    renamed = {
        name: tensors[key].reshape(own[name].shape) for name, key in zip(names, given, strict=True)
    }
    last = reference.get_submodule(linear[-1])
    return renamed if _compute_the_same(network, renamed, reference, last) else None


def _compute_the_same(
    network: Network, tensors: Tensors, reference: nn.Module, last: nn.Module
) -> bool:
    """Return whether both classifiers get the same inputs on noise; `network` keeps the tensors.

    last: the reference's classifier.
    """
    network.net.load_state_dict(tensors, strict=False)
    probe = torch.randn(
        2, 3, network.size, network.size, generator=torch.Generator().manual_seed(0)
    )
    features: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _module, inputs: features.append(inputs[0]))
    with torch.no_grad():
        network.eval()
        reference(probe)
        own = network.part(0, len(network.stages) - 1)(probe.clone())
    hook.remove()
    scale = features[0].std()
    return bool(scale > 0 and ((own - features[0]).abs().max() < 1e-3 * scale))
