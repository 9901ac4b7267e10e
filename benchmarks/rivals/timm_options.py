"""Options that make timm's create_model load a file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open


def timm_options(weights: Path) -> dict[str, Any]:
    """Return create_model's options for these weights, with the settings in their metadata."""
    with safe_open(weights, framework="pt") as file:
        facts = file.metadata() or {}
    options: dict[str, Any] = {"pad_type": facts["pad_type"]} if "pad_type" in facts else {}
    if "bn_eps" in facts:
        options["bn_eps"] = float(facts["bn_eps"])
    overlay: dict[str, Any] = {"file": str(weights)}
    for name in ("mean", "std"):
        if name in facts:
            overlay[name] = tuple(map(float, facts[name].split(",")))
    return {**options, "pretrained_cfg_overlay": overlay}
