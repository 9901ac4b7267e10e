"""What starting weights bring along: a head for known classes, and images they learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..bundle.format import Description, are_among, read_description, read_trained_on
from ..core import console
from ..core.errors import BundleError, WeightsError
from ..core.text import counted, escaped
from ..model.backbone import Network
from ..model.weights import Weights
from .context import Run
from .plan import NAMES

MOST_NAMED = 5  # classes


def keep_known_classes(network: Network, weights: Weights, classes: Sequence[str]) -> None:
    """Copy the head's rows of the classes that the weights know by name; others stay as they are.

    classes: of the data, in the order of the network's logits.
    Raises WeightsError if the weights' head does not fit their own classes or the network.
    """
    rows = {name: row for row, name in enumerate(weights.classes)}
    pairs = [(row, rows[name]) for row, name in enumerate(classes) if name in rows]
    if not pairs:
        return
    own, known = (torch.tensor(side) for side in zip(*pairs, strict=True))
    for part in ("weight", "bias"):
        target: torch.Tensor = getattr(network.head, part)
        name = f"{network.head_name}.{part}"
        given = weights.tensors.get(name, torch.empty(0))
        expected = (len(rows), *target.shape[1:])
        if given.shape != expected or not torch.isfinite(given).all():
            raise WeightsError(
                f"--weights: '{name}' is {tuple(given.shape)} or holds NaN or infinity, expected "
                f"{expected} for their {len(rows):,} classes; the file is damaged"
            )
        with torch.no_grad():
            target[own.to(target.device)] = given[known].to(target)


def say_known_classes(name: str, weights: Weights, classes: Sequence[str]) -> None:
    """Report which classes of the data the weights know by name, if their source names any.

    name: as for --weights.
    """
    if not weights.classes:
        return
    ancestor = _ancestor(name)
    if ancestor is not None and ancestor.facts.get("kept") == NAMES[0]:
        console.say(
            f"'{name}' kept its head alone: its other layers are those that it started from"
        )
    new = [name for name in classes if name not in weights.classes]
    gone = [name for name in weights.classes if name not in classes]
    if len(new) == len(classes):
        console.say(
            f"the weights know none of these classes (theirs: {_some(weights.classes)}); the head "
            "starts from scratch"
        )
        return
    console.say(
        f"the weights know {len(classes) - len(new):,} of the {len(classes):,} classes"
        + (f"; new: {_some(new)}" if new else "")
        + (f"; no longer among them: {_some(gone)}" if gone else "")
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return escaped(", ".join(names[:MOST_NAMED])) + (f" and {more:,} more" if more > 0 else "")


def _ancestor(name: str) -> Description | None:
    """Return the description of the run or bundle that weights are of; None for other forms."""
    try:
        return read_description(Path(name))
    except (BundleError, OSError):
        return None


def say_learned_before(run: Run, hashes: NDArray[np.uint8]) -> None:
    """Report how many of the measured images the starting weights have already learned from.

    Only a run or bundle records its images. hashes: of the measured images, (n, 32). A network is
    better on images that its ancestor learned from, whatever it learns now.
    """
    weights = run.recipe.weights
    ancestor = _ancestor(weights)
    if ancestor is None:
        return
    try:
        known = read_trained_on(ancestor)
    except (BundleError, OSError):
        return
    anew = run.plan[0].solved or not set(run.weights.classes) & set(run.source.classes)
    if anew and ancestor.facts.get("kept") == NAMES[0]:
        return  # only its head learned, and that is replaced
    count = int(are_among(hashes, known).sum())
    if count:
        console.say(
            f"'{weights}' was trained or selected on {count:,} of the "
            f"{counted(len(hashes), 'image')} that measure this network, so its accuracy is too "
            "high"
        )
