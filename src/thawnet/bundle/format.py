"""What lies in a bundle and how it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import new_folder, sha256_file, write_json
from ..image.preprocess import Preprocess

if TYPE_CHECKING:
    import torch

VERSION = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


def write_bundle(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    architecture: Mapping[str, Any],
    classes: Sequence[str],
    preprocess: Preprocess,
    facts: Mapping[str, Any],
) -> None:
    """Write a new bundle, whole or not at all.

    tensors: in timm's names, head included. architecture: backbone, padding, epsilon.
    classes: names in the order of the logits. facts: recipe, metrics, provenance, for people.
    """
    from safetensors.torch import save_file

    metadata = {
        "format": "pt",
        "architecture": str(architecture["backbone"]),
        "pad_type": str(architecture["padding"]),
        "input_size": str(preprocess.size),
        "mean": ",".join(map(repr, preprocess.mean)),
        "std": ",".join(map(repr, preprocess.std)),
    }
    if architecture["epsilon"] is not None:
        metadata["bn_eps"] = repr(architecture["epsilon"])
    metadata |= {key: str(facts[key]) for key in ("source", "license") if key in facts}
    with new_folder(path) as folder:
        save_file(dict(tensors), folder / WEIGHTS, metadata=metadata)
        write_json(
            folder / DESCRIPTION,
            {
                "format": VERSION,
                "architecture": dict(architecture),
                "classes": list(classes),
                "preprocess": preprocess.as_dict(),
                "sha256": {WEIGHTS: sha256_file(folder / WEIGHTS)},
                **facts,
            },
        )
