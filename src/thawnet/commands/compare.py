"""The command `compare`: two finished runs side by side, as a table, a verdict and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..core import console
from ..core.errors import UsageError
from ..core.packages import COMPARE_PACKAGES, require_installed


@dataclass(frozen=True)
class CompareOptions:
    """Compare two finished runs on the images that both were measured on.

    The table and the verdict go to stdout; McNemar's exact test decides.
    """

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder, called A."""
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Another one, called B."""
    out: Annotated[Path, tyro.conf.arg(metavar="PNG")] = Path("compare.png")
    """Where the picture goes; a file there is replaced."""


def compare(options: CompareOptions) -> None:
    """Print two runs side by side, draw them, and say in the last line who is better."""
    require_installed("comparing", COMPARE_PACKAGES)
    from ..report import compare as pair
    from ..report.compare_plot import plot_comparison

    if options.out.suffix.lower() != ".png":
        raise UsageError(f"--out '{options.out}': the picture is a PNG; name it so, as in a.png")
    comparison = pair.compare(options.first, options.second)
    plot_comparison(options.out, comparison)
    console.say(f"picture {options.out}")
    for line in (*pair.table(comparison), pair.verdict(comparison)):
        console.result(line)
