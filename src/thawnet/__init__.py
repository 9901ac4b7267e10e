"""Train an image classifier from a pretrained network: freeze, learn a head, thaw, fine-tune."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audit.audit import inspect
    from .audit.contents import Audit
    from .bundle.model import Model, Prediction, load
    from .classifier import Classifier
    from .core.errors import ThawnetError
    from .data.reading import Reading
    from .evaluation import evaluate
    from .job import train
    from .metrics.summary import Evaluation
    from .recipe import Phase, Recipe, TrainOptions, load_recipe
    from .training.run_folder import Outcome

__version__ = "0.1.0"

# From 1.29 on ONNX Runtime tells its maker names and hashes of the networks that it opens.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Audit",
    "Classifier",
    "Evaluation",
    "Model",
    "Outcome",
    "Phase",
    "Prediction",
    "Reading",
    "Recipe",
    "ThawnetError",
    "TrainOptions",
    "evaluate",
    "inspect",
    "load",
    "load_recipe",
    "train",
]

_HOMES = {
    "Audit": "audit.contents",
    "Classifier": "classifier",
    "Evaluation": "metrics.summary",
    "Model": "bundle.model",
    "Outcome": "training.run_folder",
    "Phase": "recipe",
    "Prediction": "bundle.model",
    "Reading": "data.reading",
    "Recipe": "recipe",
    "ThawnetError": "core.errors",
    "TrainOptions": "recipe",
    "evaluate": "evaluation",
    "inspect": "audit.audit",
    "load": "bundle.model",
    "load_recipe": "recipe",
    "train": "job",
}


def __dir__() -> list[str]:
    """List the public names, also those that are not imported yet."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'thawnet' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
