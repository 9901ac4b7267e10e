"""The command `train`: train in both phases and print the accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import console
from ..core.packages import TRAIN_PACKAGES, require_installed
from ..core.text import command_line
from ..recipe import TrainOptions

if TYPE_CHECKING:
    from ..training.run_folder import Outcome


def train(options: TrainOptions) -> Outcome:
    """Train, and print the accuracy as the last line on stdout; hints on its use go to stderr."""
    require_installed("training", TRAIN_PACKAGES)
    from .. import job
    from ..report.gather import REPORT

    outcome = job.train(options)
    for line in outcome.lines:
        console.result(line)
    console.say(f"network {outcome.folder / 'bundle'}, plot {outcome.folder / 'history.png'}")
    if (outcome.folder / REPORT).exists():
        console.say(f"report {outcome.folder / REPORT}: open it in a browser")
    if (outcome.folder / "bundle" / "model.onnx").exists():
        images = outcome.unlabelled or ("IMAGES",)
        use = command_line("thawnet", "predict", *images, "--model", outcome.folder)
        console.say(f"use it: {use}")
        page = command_line("thawnet", "serve", "--model", outcome.folder)
        console.say(f"as a web page: {page}")
    return outcome
