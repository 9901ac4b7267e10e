"""What starting weights bring along: a head for known classes, and images they learned from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

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


def say_known_classes(name: str, weights: Weights, classes: Sequence[str], solved: bool) -> None:
    """Report which classes of the data the weights know by name, if their source names any.

    name: as for --weights. solved: whether this run solves its head, without regard to theirs.
    """
    if not weights.classes:
        return
    ancestor = _ancestor(weights)
    if ancestor is not None and _is_head_alone(ancestor):
        console.say(
            f"'{name}' kept only its head, and a new one is computed here: starting from it has no "
            "effect"
            if solved
            else f"'{name}' kept only its head: its other layers are those that it started from"
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
        + ("; the head is computed anew for all of them" if solved else "")
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return escaped(", ".join(names[:MOST_NAMED])) + (f" and {more:,} more" if more > 0 else "")


def _ancestor(weights: Weights) -> Description | None:
    """Return the description of the run or bundle that weights are of; None for other weights."""
    if weights.read_from is not None:
        for place in (weights.read_from, weights.read_from.parent):
            with suppress(BundleError, OSError):
                return read_description(place)
    return None


def _is_head_alone(ancestor: Description) -> bool:
    """Return whether no layer below the head has learned from images that a run recorded."""
    started = ancestor.facts.get("starting_weights")
    earlier = isinstance(started, dict) and started.get("learned_from")
    return ancestor.facts.get("kept") == NAMES[0] and not earlier


def learned_before(run: Run) -> NDArray[np.uint64]:
    """Return `short_hashes` of the images that the starting weights, as this run uses them, know.

    Those are the images that the run or bundle of these weights was trained or selected on, and
    the runs before it. Empty where nothing is recorded, and where only a head learned from them
    that this run replaces.
    """
    nothing = np.empty(0, np.uint64)
    ancestor = _ancestor(run.weights)
    if ancestor is None:
        return nothing
    replaced = run.plan[0].solved or not set(run.weights.classes) & set(run.source.classes)
    if replaced and _is_head_alone(ancestor):
        return nothing
    try:
        return read_trained_on(ancestor)
    except (BundleError, OSError):
        return nothing


def say_learned_before(run: Run, hashes: NDArray[np.uint8]) -> None:
    """Report how many of the measured images the starting weights have already learned from.

    A network is better on such images, whatever it learns now. hashes: of the measured images,
    (n, 32).
    """
    if run.weights.classes and _ancestor(run.weights) is None:
        console.say(
            f"'{run.recipe.weights}' does not say which images it learned from; if these are among "
            "them, this accuracy is too high"
        )
    count = int(are_among(hashes, learned_before(run)).sum())
    if count:
        console.say(
            f"'{run.recipe.weights}' was trained or selected on {count:,} of the "
            f"{counted(len(hashes), 'image')} that measure this network, so its accuracy is too "
            "high"
        )
