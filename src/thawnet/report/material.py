"""The material of a finished run's report, rebuilt from its folder and data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle.format import read_description
from ..bundle.model import load
from ..core import console
from ..core.errors import DataError, RunError, ThawnetError, first_line
from ..data.store import ImageStore, typical_image
from ..training.context import Material
from ..training.gate import squares_of
from ..training.machine import choose_device, decide
from ..training.parts import content_of
from ..training.pretrained import fit_input, pretrained_features
from ..training.ranks import ALONE
from ..training.reopening import TrainingData, reopen
from ..training.run_folder import read_held_out
from ..training.trunk.feeds import Batch
from .run_reader import FinishedRun, read_finished


def reopen_material(folder: Path, data: str | None, data_dir: Path | None) -> Material:
    """Rebuild the material of a finished run's report.

    data, data_dir: as for `reopen`. The logits are recomputed by the network's ONNX model; those of
    a cross-validated run are read from its folder.
    Raises what `read_finished` and `reopen` do, DataError if the images measured on have changed.
    """
    finished = read_finished(folder)
    run = reopen(read_description(folder), data, data_dir)
    measured = run.test() if finished.part == "test" else run.val
    if content_of(measured, run.source.classes) != finished.content:
        raise DataError(
            f"the {finished.part} part of '{run.source.name}' is not what '{folder}' was "
            "measured on: images were added, removed or changed; give it as it was then"
        )
    return Material(
        folder=folder,
        result=finished.result,
        history=finished.history,
        recipe=run.recipe,
        source=run.source,
        train=run.train,
        measured=measured,
        logits=_logits(finished, measured),
        features=_features(run),
    )


def _logits(finished: FinishedRun, measured: ImageStore) -> NDArray[np.float32]:
    """Return the network's logits; for a cross-validated run, the held-out logits of its folds."""
    if finished.result.crossed:
        logits = read_held_out(finished.folder)
        if logits.shape[0] != len(measured):
            raise RunError(
                f"'{finished.folder}': its held-out answers are of {len(logits):,} images, "
                f"not of {len(measured):,}; train again"
            )
        return logits
    model = load(finished.folder)
    squares = squares_of(measured, np.arange(len(measured)), model.preprocess.crop)
    return model.all_logits(squares)


def _features(run: TrainingData) -> Batch | None:
    """Return the frozen network's features of the training images, None if they are unavailable."""
    recipe = run.recipe
    machine = decide(choose_device("auto"), recipe.precision, "no")
    try:
        recipe, weights, spec = fit_input(recipe, run.source, typical_image(run.lists.train))
    except ThawnetError as error:
        console.say(f"label errors are not looked for: no pretrained weights ({first_line(error)})")
        return None
    feed_of = pretrained_features(recipe, run.source, weights, spec, machine, ALONE)
    feed = feed_of(run.train)
    return feed.epoch(0) if feed.cached else None
