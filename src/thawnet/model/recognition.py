"""Recognition of a network by the shapes of its weights, since files seldom name it."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import WeightsError
from .keras_file import is_keras
from .weight_files import read_weights_file, stated_architecture

# Common starting points, the most common first. Networks that shapes cannot tell apart, such as
# those that differ only in TensorFlow's padding, are all listed: then the user has to choose.
KNOWN = (
    *("mobilenetv2_100", "resnet50", "resnet18", "vit_base_patch16_224", "vit_small_patch16_224"),
    *("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_base_patch14_dinov2"),
    *("vit_base_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "vit_base_patch16_dinov3"),
    *("convnext_tiny", "convnext_small", "convnext_base", "efficientnet_b0", "tf_efficientnet_b0"),
    *("resnet34", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"),
    *("mobilenetv3_large_100", "tf_mobilenetv3_large_100", "mobilenetv3_small_100"),
    *("tf_mobilenetv3_small_100", "mobilenetv4_conv_small", "mobilenetv4_conv_medium"),
    *("efficientnet_lite0", "tf_efficientnet_lite0", "efficientnet_b1", "tf_efficientnet_b1"),
    *("efficientnet_b2", "tf_efficientnet_b2", "efficientnet_b3", "tf_efficientnet_b3"),
    *("efficientnet_b4", "tf_efficientnet_b4", "tf_efficientnetv2_s", "efficientnetv2_rw_s"),
    *("vit_tiny_patch16_224", "vit_large_patch16_224", "vit_base_patch32_224"),
    *("vit_base_patch16_clip_224", "vit_base_patch32_clip_224", "vit_base_patch16_siglip_224"),
    *("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224"),
    *("swin_base_patch4_window7_224", "convnextv2_atto", "convnextv2_tiny", "tiny_vit_5m_224"),
    *("densenet121", "regnety_004", "regnety_016", "regnety_032", "edgenext_small"),
    *("mobilenetv2_050", "mobilenetv2_140", "mobilenetv3_large_075", "mnasnet_100"),
)
MOST_EXTRA = 4  # matrices of a file that are not part of the trunk: heads, position embeddings, ...


def backbone_of(path: Path) -> str:
    """Return the backbone that weights name, or the only one with their shapes; '' if neither.

    Raises WeightsError if several backbones have these shapes.
    """
    stated = stated_architecture(path)
    if stated or not path.exists() or is_keras(path):
        return stated
    try:
        tensors = read_weights_file(path).tensors
    except WeightsError:  # reported when the weights are loaded
        return ""
    found = recognised(tensors)
    if len(found) > 1:
        raise WeightsError(
            f"--weights '{path}' may be of {' or '.join(found)}: choose one with --backbone"
        )
    return found[0] if found else ""


def recognised(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the networks in KNOWN whose trunk has these shapes, whatever the names."""
    given = _Shapes.of(value for key, value in tensors.items() if "mask_token" not in key)
    found: dict[str, int] = {}
    for name in KNOWN:
        extra = _trunk_of(name).lacking(given)
        if extra is not None:
            found[name] = extra
        elif found:  # those with the same shapes are neighbours in KNOWN
            break
    return [name for name, extra in found.items() if extra == min(found.values())]


@functools.cache
def _trunk_of(name: str) -> _Shapes:
    """Return a model's shapes without classifier and position embeddings, which are resampled."""
    import timm

    with torch.device("meta"):
        net: Any = timm.create_model(name)
    head = f"{net.default_cfg['classifier']}."
    return _Shapes.of(
        value
        for key, value in net.state_dict().items()
        if not key.startswith(head) and "pos_embed" not in key
    )


@dataclass(frozen=True)
class _Shapes:
    """A summary of a network's tensors that is the same however a library stores them."""

    matrices: Counter[tuple[int, ...]]
    """Shapes of two or more sides, sides of 1 dropped; joint query, key and value count as 3."""
    vectors: int
    """Total number of elements in all other tensors."""

    @classmethod
    def of(cls, tensors: Iterable[torch.Tensor]) -> _Shapes:
        matrices: Counter[tuple[int, ...]] = Counter()
        vectors = 0
        for tensor in tensors:
            shape = tuple(side for side in tensor.shape if side != 1)
            if not tensor.is_floating_point():
                continue
            if len(shape) < 2:
                vectors += tensor.numel()
            elif len(shape) == 2 and shape[0] == 3 * shape[1]:
                matrices[shape[1:] * 2] += 3
            else:
                matrices[shape] += 1
        return cls(matrices, vectors)

    def lacking(self, file: _Shapes) -> int | None:
        """Return how many more matrices a file has, such as a classifier's; None if unlike."""
        extra = list((file.matrices - self.matrices).elements())
        if self.matrices - file.matrices or len(extra) > MOST_EXTRA:
            return None
        # Each extra matrix may come with a bias.
        biases = itertools.product(*((0, shape[0]) for shape in extra))
        fits = file.vectors - self.vectors in {sum(each) for each in biases}
        return len(extra) if fits else None
