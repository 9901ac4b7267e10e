"""The command `evaluate`: measure a network on labelled images, as a table or JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..core import console
from ..core.errors import DataError, UsageError
from ..core.flags import Switch, option
from ..data.reading import AS_IT_IS, Reading


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a trained network on labelled images.

    Prints precision, recall and F1 of each class, the most frequent confusions, calibration, and
    the overall accuracy last. An image that cannot be read is listed and left out; the exit status
    is then 1.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The run folder of a finished run, or a bundle."""
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Labelled images, in any form that `thawnet train` takes. Classes are matched by name; they
    may be some of the model's classes."""
    data_dir: Annotated[Path | None, option("FOLDER")] = None
    """For cifar10 and cifar100: the folder that holds the data. Default: download it."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = AS_IT_IS
    """How DATA is read, as for `train`."""
    part: Annotated[Literal["train", "val", "test"] | None, option()] = None
    """The part of the data to measure on. Default: test, or everything if the data has no test
    part."""
    json: Switch = False
    """Print everything as one JSON object."""
    workers: Annotated[int | None, option("N")] = None
    """Threads that decode and compute. Default: one per core."""


def evaluate(options: EvaluateOptions) -> None:
    """Evaluate with progress bars and print the metrics on stdout.

    Raises what `evaluation.evaluate` does, and DataError at the end if an image could not be read.
    """
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers}: must be at least 1")
    from .. import evaluation
    from ..bundle.model import load
    from ..metrics.table import table

    model = load(options.model, options.workers)
    console.say(model.summary)
    measured = evaluation.evaluate(
        *(model, options.data, options.data_dir, options.part),
        *(console.progress, console.say, options.reading),
    )
    if options.json:
        # ASCII, so that names that are not valid UTF-8 can be written too.
        console.result(json.dumps(measured.as_dict(), indent=2))
    else:
        for line in table(measured):
            console.result(line)
    if lost := len(measured.unreadable):
        raise DataError(
            f"{lost:,} of {measured.images + lost:,} images could not be read; "
            "the results list them, the figures leave them out"
        )
