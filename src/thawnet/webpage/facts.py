"""The facts that a page has of its network, and the folder of the page's files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import embedded
from ..bundle.model import Model

STATIC = Path(__file__).parent / "static"
EXAMPLES = STATIC / "examples"


def page_facts(model: Model, name: str, examples: Iterable[str]) -> dict[str, Any]:
    """Return what the page shows of a network, as JSON; examples: names of pictures to try."""
    return {
        "name": name,
        "backbone": model.backbone,
        "classes": list(model.classes),
        "size": model.preprocess.size,
        "temperature": model.temperature,
        "unfamiliar": model.unfamiliar is not None,
        "explains": model.class_weights is not None,
        "examples": list(examples),
    }


def is_embedded(model: Model) -> bool:
    """Return whether a network is the one that ships with its examples."""
    return model.path.resolve() == embedded.BUNDLE.resolve()


def name_for_people(model: Model, path: Path | None) -> str:
    """Return a display name: the run folder's name, or 'embedded'."""
    if is_embedded(model):
        return "embedded"
    path = (path or Path()).resolve()
    return path.name if path.name != "bundle" else path.parent.name
