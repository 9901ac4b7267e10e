"""What a page knows of the network that answers it, and where the page's files lie."""

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
    """Return whether a network is the one that ships, whose pictures to try do as well."""
    return model.path.resolve() == embedded.BUNDLE.resolve()


def name_for_people(model: Model, given: Path | None) -> str:
    """Return what a network is called that was asked for as `given`: its run's name, mostly."""
    if is_embedded(model):
        return "embedded"
    path = (given or Path()).resolve()
    return path.name if path.name != "bundle" else path.parent.name
