"""A whole job: the run, and the report that explains it."""

from __future__ import annotations

from .core import console
from .core.errors import ThawnetError, first_line
from .core.text import command_line
from .data.items import Source
from .recipe import TrainOptions
from .report.gather import REPORT, write_report
from .training import run
from .training.context import Material
from .training.run_folder import Outcome


def train(options: TrainOptions, source: Source | None = None) -> Outcome:
    """Train, write the report, and return what came out. See `training.run.train`."""
    return run.train(options, source, report)


def report(material: Material) -> None:
    """Write the report of a finished run; a failure to write it is only told."""
    try:
        write_report(material, material.folder / REPORT)
    except (ThawnetError, OSError, ValueError) as error:
        again = command_line("thawnet", "report", material.folder)
        console.say(f"no report ({first_line(error)}); the run is finished all the same: {again}")
