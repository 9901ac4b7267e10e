"""The command `report`: the page that explains a finished run, written again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..core import console
from ..core.packages import TRAIN_PACKAGES, require_installed


@dataclass(frozen=True)
class ReportOptions:
    """Write the report of a finished run again: one HTML file that needs nothing else.

    `thawnet train` writes it in the end. It shows images, so the data has to be at hand.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder."""
    data: str | None = None
    """What the run was trained on, if that is no data set known by name: a path as `thawnet train`
    takes it."""
    data_dir: Path | None = None
    """Where the data lies, when it is not to be downloaded."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="HTML")] = None
    """Where to write it. Default: report.html in the run folder."""


def report(options: ReportOptions) -> None:
    """Write a report and print where it is."""
    require_installed("a report", TRAIN_PACKAGES)
    from ..report.gather import REPORT, write_report
    from ..report.material import reopen_material

    path = options.out or options.run / REPORT
    material = reopen_material(options.run, options.data, options.data_dir)
    timings = write_report(material, path)
    for name, seconds in timings.items():
        console.say(f"{seconds:6.1f} s  {name}")
    console.result(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
