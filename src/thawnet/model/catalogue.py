"""Facts about backbones before training: size, cost, licence, training data of their weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from .backbone import has_fixed_size, size_step
from .names import TORCHVISION, bare, smallest_first
from .weights import published_size

# A short list to start with, from small to large: convolutional networks and transformers.
CURATED = {
    "mobilenetv4_conv_small": "smallest: phones, pages, laptops",
    "mobilenetv2_100": "the default: laptops, pages; its caches are small",
    "tf_efficientnet_lite0": "laptops; keeps its accuracy in 8-bit integers",
    "efficientnet_b0": "more accurate, slower for its size on a CPU",
    "resnet50": "the best known; fast on a GPU",
    "convnext_tiny": "accurate, wants a GPU",
    "tiny_vit_5m_224": "small transformer with convolutions",
    "vit_small_patch16_224": "the plain vision transformer",
    "vit_small_patch14_dinov2": "features that need a head alone: --epochs 6 0",
    "vit_small_patch16_dinov3": "the same, newer; mind its licence",
    "vit_base_patch16_siglip_224": "large; features from images and their captions",
}
MOST = 40  # models that a search returns
SIDE = 224  # px; input side at which the costs of networks that take any size are compared


@dataclass(frozen=True)
class Facts:
    """Facts from timm's registry and from the network itself."""

    name: str
    parameters: float
    """In millions."""
    macs: float
    """Multiply-accumulates for one image at `size`, in billions."""
    size: int
    """Side of the input, in pixels."""
    licence: str
    weights: str
    """timm's tag of its published weights, which names what they were trained on."""


def search(words: Iterable[str]) -> list[str]:
    """Return at most MOST of timm's models whose names contain all words, smaller ones first."""
    import timm

    asked = [part for word in words for part in word.lower().replace("-", "_").split()]
    meant = [bare(TORCHVISION.get(word, word)) for word in asked]
    models = [name for name in timm.list_models() if all(word in bare(name) for word in meant)]
    return sorted(models, key=smallest_first)[:MOST]


def facts_of(name: str) -> Facts | None:
    """Return the facts about a model, None if it cannot be built without its weights."""
    import timm
    from torch.utils.flop_counter import FlopCounterMode

    config = timm.get_pretrained_cfg(name)
    step = size_step(name)
    size = step * round(SIDE / step) if step else published_size(name)
    options: dict[str, Any] = {"img_size": size} if has_fixed_size(name) else {}
    try:
        with torch.device("meta"), torch.no_grad():
            net = timm.create_model(name, **options).eval().requires_grad_(False)
            counter = FlopCounterMode(display=False)
            with counter:
                net(torch.zeros(1, 3, size, size))
    except Exception:  # any of timm's 1,300 models may raise anything
        return None
    return Facts(
        name=name,
        parameters=sum(value.numel() for value in net.parameters()) / 1e6,
        macs=counter.get_total_flops() / 2e9,
        size=size,
        licence=str((config and config.license) or "not stated"),
        weights=str(config.tag or "in1k") if config and config.has_weights else "none published",
    )
