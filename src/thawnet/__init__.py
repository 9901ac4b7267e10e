"""Train an image classifier from a pretrained network: freeze, learn a head, thaw, fine-tune."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle.predict import Model, Prediction, load
    from .classifier import Classifier
    from .data.audit import Audit, inspect
    from .errors import ThawnetError
    from .measuring import evaluate
    from .recipe import Phase, Recipe, TrainOptions, load_recipe
    from .report.evaluation import Evaluation
    from .training.outcome import Outcome
    from .training.run import train

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Classifier",
    "Evaluation",
    "Model",
    "Outcome",
    "Phase",
    "Prediction",
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
    "Audit": "data.audit",
    "Classifier": "classifier",
    "Evaluation": "report.evaluation",
    "Model": "bundle.predict",
    "Outcome": "training.outcome",
    "Phase": "recipe",
    "Prediction": "bundle.predict",
    "Recipe": "recipe",
    "ThawnetError": "errors",
    "TrainOptions": "recipe",
    "evaluate": "measuring",
    "inspect": "data.audit",
    "load": "bundle.predict",
    "load_recipe": "recipe",
    "train": "training.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'thawnet' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
