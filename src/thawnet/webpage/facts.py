"""Facts about a network for its web page, and the folder of the page's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import embedded
from ..bundle.model import Model

STATIC = Path(__file__).parent / "static"
EXAMPLES = STATIC / "examples"


def page_facts(model: Model, name: str, examples: Iterable[str]) -> dict[str, Any]:
    """Return what the page shows of a network, for JSON. examples: names of example images."""
    return {
        "name": name,
        "backbone": model.backbone,
        "classes": list(model.classes),
        "size": model.preprocess.size,
        "temperature": model.temperature,
        "flags_unfamiliar": model.unfamiliar is not None,
        "explains": model.class_weights is not None,
        "accuracy": _accuracy(model.facts),
        "examples": list(examples),
    }


def _accuracy(facts: Mapping[str, Any]) -> dict[str, float] | None:
    """Return a network's accuracy on unseen images, None if it is missing or implausible.

    facts: those of its model.json, not validated.
    """
    try:
        metrics = facts["metrics"]
        scores = metrics.get("test") or metrics["validation"]
        share, (least, most) = float(scores["accuracy"]), map(float, scores["interval_95"])
        images = int(scores["images"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    if not 0 <= least <= share <= most <= 1 or images < 1:
        return None
    return {"share": share, "least": least, "most": most, "images": images}


def is_embedded(model: Model) -> bool:
    """Return whether a network is the one embedded in the package."""
    return model.path.resolve() == embedded.BUNDLE.resolve()


def name_for_people(model: Model, path: Path | None) -> str:
    """Return a display name: the run folder's name, or 'embedded'."""
    if is_embedded(model):
        return "embedded"
    path = (path or Path()).resolve()
    return path.name if path.name != "bundle" else path.parent.name
