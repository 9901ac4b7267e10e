"""Where a backbone's weights come from, and whether they fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import WeightsError
from .backbone import Network

IMAGENET = "imagenet"
BUNDLED = "bundled"
BUNDLED_FILE = "cifar100_mobilenetv2_100.safetensors"


@dataclass(frozen=True)
class Weights:
    """Tensors in timm's names without the head, and what they ask of network and images.

    padding: '' or 'same'. epsilon: of the batch-norms, None for the model's own. mean, std: for
    pixels in [0, 1]. size: pixels a side that they were trained at.
    digest: SHA-256 over names and values.
    """

    tensors: dict[str, torch.Tensor]
    padding: str
    epsilon: float | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    origin: str
    licence: str
    architecture: str
    digest: str


def load_weights(name: str, backbone: str) -> Weights:
    """Load 'imagenet' (timm's, from the hub), 'bundled', or a safetensors file.

    Raises WeightsError when they can not be found or read.
    """
    if name == BUNDLED:
        with resources.as_file(resources.files("thawnet.embedded") / BUNDLED_FILE) as path:
            return _from_file(path, backbone)
    if name == IMAGENET:
        return _from_hub(backbone)
    path = Path(name)
    if not path.is_file():
        raise WeightsError(
            f"--weights '{name}': no such file; "
            f"give a .safetensors file, '{IMAGENET}' or '{BUNDLED}'"
        )
    return _from_file(path, backbone)


def _from_file(path: Path, backbone: str) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"--weights '{path}': not a readable safetensors file ({error})"
        ) from error
    default = _published(backbone)
    try:
        return Weights(
            tensors=_trunk_only(tensors, backbone),
            padding=metadata.get("pad_type", ""),
            epsilon=float(metadata["bn_eps"]) if "bn_eps" in metadata else None,
            mean=_triple(metadata["mean"]) if "mean" in metadata else default[0],
            std=_triple(metadata["std"]) if "std" in metadata else default[1],
            size=int(metadata.get("input_size", default[2])),
            origin=metadata.get("source", path.name),
            licence=metadata.get("license", "not stated"),
            architecture=metadata.get("architecture", ""),
            digest=_digest(tensors),
        )
    except ValueError as error:
        raise WeightsError(
            f"--weights '{path}': its metadata is not understood ({error}); "
            "expected bn_eps a number, mean and std three numbers each"
        ) from error


def _from_hub(backbone: str) -> Weights:
    import timm

    try:
        model = timm.create_model(backbone, pretrained=True)
    except Exception as error:  # the hub's client raises many kinds; all mean "not reachable"
        raise WeightsError(
            f"ImageNet weights of '{backbone}' could not be loaded from the Hugging Face hub "
            f"({type(error).__name__}); give a file with --weights FILE.safetensors, a mirror with "
            f"the variable HF_ENDPOINT, or start from the embedded network with --weights {BUNDLED}"
        ) from error
    tensors: dict[str, torch.Tensor] = dict(model.state_dict())
    mean, std, size = _published(backbone)
    config: Any = model.pretrained_cfg
    return Weights(
        tensors=_trunk_only(tensors, backbone),
        padding="",
        epsilon=None,
        mean=mean,
        std=std,
        size=size,
        origin=str(config.get("hf_hub_id") or backbone),
        licence=str(config.get("license", "not stated")),
        architecture=backbone,
        digest=_digest(tensors),
    )


def fill(network: Network, weights: Weights, name: str) -> None:
    """Copy the weights into every layer but the head.

    Raises WeightsError naming the first tensor that does not fit.
    """
    own = {
        key: value
        for key, value in network.net.state_dict().items()
        if not _ignored(key, network.head_name)
    }
    missing = [key for key in own if key not in weights.tensors]
    foreign = [key for key in weights.tensors if key not in own]
    wrong = [
        f"{key} is {tuple(weights.tensors[key].shape)}, expected {tuple(value.shape)}"
        for key, value in own.items()
        if key in weights.tensors and weights.tensors[key].shape != value.shape
    ]
    if missing or foreign or wrong:
        made_for = f" (made for '{weights.architecture}')" if weights.architecture else ""
        detail = (wrong[:1] or [f"no tensor '{key}'" for key in missing[:1]]) or [
            f"unknown tensor '{key}'" for key in foreign[:1]
        ]
        raise WeightsError(
            f"--weights '{name}'{made_for} do not fit backbone '{network.backbone}': "
            f"{detail[0]}; "
            f"{len(missing)} missing, {len(foreign)} unknown, {len(wrong)} of another shape"
        )
    for key, value in weights.tensors.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"--weights '{name}': tensor '{key}' holds NaN or infinity")
    network.net.load_state_dict(weights.tensors, strict=False)


def _ignored(key: str, head: str) -> bool:
    return key.startswith(f"{head}.") or key.endswith("num_batches_tracked")


def _trunk_only(tensors: dict[str, torch.Tensor], backbone: str) -> dict[str, torch.Tensor]:
    import timm

    config = timm.get_pretrained_cfg(backbone)
    head = str(config.classifier) if config is not None else "classifier"
    return {key: value.float() for key, value in tensors.items() if not _ignored(key, head)}


def published_size(backbone: str) -> int:
    """Return pixels a side that timm's own weights for a backbone were trained at."""
    return _published(backbone)[2]


def _published(
    backbone: str,
) -> tuple[tuple[float, float, float], tuple[float, float, float], int]:
    """Return mean, std and input size of timm's own weights for a backbone."""
    import timm

    config = timm.get_pretrained_cfg(backbone)
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224
    return _three(config.mean), _three(config.std), int(config.input_size[-1])


def _triple(text: str) -> tuple[float, float, float]:
    return _three(float(word) for word in text.split(","))


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
