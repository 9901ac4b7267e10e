"""The command `report`: write the report of a finished run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..core import console
from ..core.flags import option
from ..core.packages import TRAIN_PACKAGES, require_installed


@dataclass(frozen=True)
class ReportOptions:
    """Write the report of a finished run again.

    `thawnet train` writes it already: one HTML file that needs nothing else. It shows images, so
    the data must be where the run found it, or be named with --data.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder."""
    data: Annotated[str | None, option("DATA")] = None
    """The data that the run was trained on. Default: where the run found it."""
    data_dir: Annotated[Path | None, option("FOLDER")] = None
    """For cifar10 and cifar100: the folder that holds the data. Default: download it."""
    out: Annotated[Path | None, option("FILE")] = None
    """The file to write. Default: report.html in the run folder."""


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
