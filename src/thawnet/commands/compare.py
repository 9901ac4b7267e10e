"""The command `compare`: two finished runs side by side, as a table, a verdict and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..core import console
from ..core.columns import aligned
from ..core.errors import UsageError
from ..core.packages import COMPARE_PACKAGES, require_installed
from ..data.reading import AS_IT_IS, Reading
from ..metrics.paired import pair_table, verdict


@dataclass(frozen=True)
class CompareOptions:
    """Compare two finished runs on the images that both were measured on.

    With --data any two networks, on labelled images. The table and the verdict go to stdout;
    McNemar's exact test decides.
    """

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder, or with --data a bundle; called A."""
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Another one, called B."""
    data: str | None = None
    """Labelled images to measure both on, as `evaluate` takes them; no picture is drawn."""
    data_dir: Path | None = None
    """As for `train`."""
    reading: Annotated[Reading, tyro.conf.arg(name="")] = AS_IT_IS
    """As for `train`."""
    out: Annotated[Path, tyro.conf.arg(metavar="PNG")] = Path("compare.png")
    """Where the picture goes; a file there is replaced."""


def compare(options: CompareOptions) -> None:
    """Print two runs side by side, draw them, and say in the last line who is better."""
    if options.data is not None:
        _measured(options, options.data)
        return
    if options.data_dir is not None:
        raise UsageError(f"--data-dir '{options.data_dir}': needs --data beside it")
    require_installed("comparing", COMPARE_PACKAGES)
    from ..report import compare as pair
    from ..report.compare_plot import plot_comparison

    if options.out.suffix.lower() != ".png":
        raise UsageError(f"--out '{options.out}': the picture is a PNG; name it so, as in a.png")
    comparison = pair.compare(options.first, options.second)
    plot_comparison(options.out, comparison)
    console.say(f"picture {options.out}")
    for line in (*pair.table(comparison), verdict(comparison.pairs, comparison.images)):
        console.result(line)


def _measured(options: CompareOptions, data: str) -> None:
    """Print how two networks do on the same labelled images."""
    from ..evaluation import pair_up

    pairs = pair_up(
        *(options.first, options.second, data, options.data_dir),
        *(console.progress, console.say, options.reading),
    )
    for line in (
        *aligned([("A", str(options.first)), ("B", str(options.second))]),
        "",
        *pair_table(pairs),
        "",
        verdict(pairs, "images that neither learnt from"),
    ):
        console.result(line)
