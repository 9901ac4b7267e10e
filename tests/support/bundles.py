"""Bundles that no run has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 200),
    "cyan": (30, 200, 200),
    "magenta": (200, 30, 200),
    "yellow": (200, 200, 30),
}


def change_description(folder: Path, **values: Any) -> Path:
    """Set fields of a bundle's model.json, and return its folder."""
    file = folder / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return folder


def write_random_bundle(
    path: Path,
    backbone: str,
    padding: str = "",
    epsilon: float | None = None,
    licence: str = "none",
) -> Path:
    """Write the bundle of a network of 48 px with random weights, for classes a, b and c."""
    import torch

    from thawnet.bundle.format import Architecture, short_hashes, write_bundle
    from thawnet.bundle.meaning import Meaning
    from thawnet.bundle.onnx import to_onnx
    from thawnet.data.items import sha256_rows
    from thawnet.image.preprocess import Preprocess
    from thawnet.model.backbone import Network
    from thawnet.training.gate import class_weights, outputs

    torch.manual_seed(1)
    network = Network(backbone, 3, 48, padding)
    torch.nn.init.normal_(network.head.weight)  # so that images differ in class
    spec = Preprocess(48, 40, (0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    meaning = Meaning(("a", "b", "c"), spec, 2.0)
    write_bundle(
        path,
        network.net.state_dict(),
        to_onnx(outputs(network), meaning),
        Architecture(backbone, padding, epsilon, class_weights(network, outputs(network))),
        meaning,
        short_hashes(sha256_rows([b"seen"])),
        {"source": "random", "license": licence},
        "A card\n",
    )
    return path


def write_colours(path: Path) -> Path:
    """Write a bundle that knows COLOURS by an image's mean, and calls bright images unfamiliar."""
    import torch
    from torch import nn

    from thawnet.bundle.format import Architecture, short_hashes, write_bundle
    from thawnet.bundle.meaning import Meaning, Unfamiliar
    from thawnet.bundle.onnx import to_onnx
    from thawnet.data.items import sha256_rows
    from thawnet.image.preprocess import Preprocess

    class Brightness(nn.Module):
        def forward(self, middle: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            return middle.sum(1) + 0 * logits.sum(1)

    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (n, 3), -1 to 1
    head = nn.Linear(3, len(COLOURS), bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(list(COLOURS.values())) / 100 - 1)
    spec = Preprocess(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    meaning = Meaning(tuple(COLOURS), spec, 0.5, Unfamiliar(2.0, 0.05))
    write_bundle(
        path,
        head.state_dict(),
        to_onnx({"middle": mean, "features": nn.Identity(), "logits": head}, meaning, Brightness()),
        Architecture("mean", "", None, None),
        meaning,
        short_hashes(sha256_rows([b"seen"])),
        {"source": "by hand", "license": "none"},
        "A card\n",
    )
    return path
