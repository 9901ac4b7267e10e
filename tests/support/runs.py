"""Small runs: the network they train, and what they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thawnet.recipe import TrainOptions, load_recipe, to_table, to_toml

if TYPE_CHECKING:
    import torch

    from thawnet.model.backbone import Network
    from thawnet.recipe import Phase
    from thawnet.training.loop import Epoch
    from thawnet.training.plan import PhasePlan
    from thawnet.training.run_folder import Outcome

TINY = "test_efficientnet"  # timm's own for tests: 100,000 parameters, a MobileNet's parts


def write_random_weights(path: Path, backbone: str, padding: str = "") -> Path:
    """Write a network with random weights, in timm's names, and return its path.

    Its batch-norms hold the statistics of noise, so that its features tell images apart.
    """
    import torch
    from safetensors.torch import save_file
    from torch.nn import BatchNorm2d

    from thawnet.model.backbone import Network

    torch.manual_seed(1)
    network = Network(backbone, 3, 32, padding)
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(64, 3, 32, 32) * 2 - 1)
    tensors = {
        name: value.contiguous()
        for name, value in network.net.state_dict().items()
        if not name.startswith(f"{network.head_name}.") and not name.endswith("num_batches_tracked")
    }
    metadata = {"pad_type": padding, "bn_eps": "1e-05", "mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5"}
    save_file(tensors, path, metadata=metadata)
    return path


def plan_of(network: Network, phase: Phase, compiled: bool = False) -> PhasePlan:
    """Return the plan of a phase as it stands, on 1,000 images."""
    from thawnet.model.thawing import first_layer
    from thawnet.training.plan import PhasePlan

    layer = first_layer(network, phase.train_from)
    split = network.stage_of(layer)
    return PhasePlan("head", phase, 1000, layer, split, False, compiled, (split,), (split,))


def tiny_options(data: Path, weights: Path) -> TrainOptions:
    """Return a call that trains TINY, an epoch a phase."""
    return TrainOptions(
        data=str(data),
        recipe="quick",
        backbone=TINY,
        weights=str(weights),
        size=32,
        epochs=(1, 1),
        precision="float32",
        compile="no",
        no_report=True,
    )


def tiny_call(data: object, weights: Path, epochs: tuple[int, int] = (1, 1)) -> tuple[str, ...]:
    """Return the words of a call of `train` or `doctor` on TINY: a second, unless longer."""
    network = ("--backbone", TINY, "--weights", str(weights), "--size", "32")
    return (str(data), *network, "--epochs", *map(str, epochs))


def under(options: TrainOptions, recipe: str) -> TrainOptions:
    """Return a call under another recipe; `seed` names a layer of MobileNetV2, which TINY lacks."""
    return replace(options, recipe=recipe, train_from="upper" if recipe == "seed" else None)


def quick_with(folder: Path, head: dict[str, Any], finetune: dict[str, Any]) -> str:
    """Write the recipe `quick` with other values in its phases, and return the file's name.

    Its head is stepped, and images are held back, unless they say otherwise.
    """
    recipe = load_recipe("quick")
    head = {"solve_images": 0} | head
    recipe = replace(
        recipe, head=replace(recipe.head, **head), finetune=replace(recipe.finetune, **finetune)
    )
    path = folder / "own.toml"
    path.write_text(to_toml(to_table(recipe)))
    return str(path)


def tensors_of(outcome: Outcome) -> dict[str, Any]:
    """Return the finished network's tensors by name."""
    from safetensors.torch import load_file

    return load_file(outcome.folder / "bundle" / "model.safetensors")


def epochs_of(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the lines of a run's log."""
    return [json.loads(line) for line in (outcome.folder / "log.jsonl").read_text().splitlines()]


def epoch_of(inputs: torch.Tensor, labels: torch.Tensor, **changes: Any) -> Epoch:
    """Return an epoch over such inputs and labels, (n, ...) and (n,): one batch, unless changed."""
    import numpy as np
    import torch

    from thawnet.training.loop import Epoch

    plan: dict[str, Any] = {
        "batch": lambda positions: inputs[torch.from_numpy(positions)],
        "labels": labels,
        "loss_weights": None,
        "order": [np.arange(len(labels))],
        "first_step": 0,
        "steps": 1,
        "seed": 0,
    }
    return Epoch(**{**plan, **changes})
