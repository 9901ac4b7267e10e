"""What the report of a finished run is made of, found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..bundle.format import read_description
from ..bundle.model import load
from ..core import console
from ..core.errors import DataError, ThawnetError, first_line
from ..data.store import typical_short_side
from ..training.context import Material
from ..training.gate import squares_of
from ..training.machine import choose_device, decide
from ..training.parts import content_of
from ..training.pretrained import fit_input, pretrained_features
from ..training.ranks import ALONE
from ..training.trained_on import TrainingData, reopen
from ..training.trunk.feeds import Batch
from .run_reader import read_finished


def reopen_material(folder: Path, data: str | None, data_dir: Path | None) -> Material:
    """Return what the report of a finished run is made of, found again.

    data, data_dir: as for `reopen`, which see for what is raised. The network's logits are computed
    anew, by its ONNX model.
    """
    finished = read_finished(folder)
    description = read_description(folder)
    found = reopen(description, data, data_dir)
    measured = found.test() if finished.part == "test" else found.val
    if content_of(measured, found.source.classes) != finished.content:
        raise DataError(
            f"the {finished.part} part of '{found.source.name}' is not what '{folder}' was "
            "measured on: images were added, removed or changed; give it as it was then"
        )
    model = load(folder)
    squares = squares_of(measured, np.arange(len(measured)), model.preprocess.crop)
    return Material(
        folder=folder,
        result=finished.result,
        history=finished.history,
        recipe=found.recipe,
        source=found.source,
        train=found.train,
        measured=measured,
        logits=model.all_logits(squares),
        features=_features(found),
    )


def _features(found: TrainingData) -> Batch | None:
    """Return the frozen network's features of the training images, None where they cannot be."""
    recipe = found.recipe
    machine = decide(choose_device("auto"), recipe.precision, "no")
    try:
        recipe, weights, spec = fit_input(recipe, typical_short_side(found.lists.train))
    except ThawnetError as error:
        console.say(f"the pretrained weights are not at hand ({first_line(error)})")
        return None
    feed_of = pretrained_features(recipe, found.source, weights, spec, machine, ALONE)
    feed = feed_of(found.train)
    return feed.epoch(0) if feed.cached else None
