"""A whole training job: the run, and the report that explains it."""

from __future__ import annotations

from .core import console
from .core.errors import ThawnetError, first_line
from .core.text import command_line
from .recipe import TrainOptions
from .report.gather import REPORT, write_report
from .training import run
from .training.context import Material
from .training.run_folder import Outcome


def train(options: TrainOptions) -> Outcome:
    """Train a classifier, or finish an interrupted run, and return the outcome.

    Writes the run folder with the network, the log and the report. Under torchrun every process
    does its share of the run, and the first writes. Calls from several threads run one after
    another. Raises ThawnetError with a message of one sentence; `options.resume` continues from
    what was done until then.
    """
    return run.train(options, report=report)


def report(material: Material) -> None:
    """Write the report of a finished run; if that fails, only print a line."""
    try:
        write_report(material, material.folder / REPORT)
    except (ThawnetError, OSError, ValueError) as error:
        again = command_line("thawnet", "report", material.folder)
        console.say(f"no report ({first_line(error)}); the run is complete. Write it with {again}")
