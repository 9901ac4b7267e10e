"""The command `compare`: two runs side by side, as a table, a verdict and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..core import console
from ..core.columns import aligned
from ..core.errors import UsageError
from ..core.flags import option
from ..core.packages import COMPARE_PACKAGES, require_installed
from ..data.reading import AS_IT_IS, Reading
from ..metrics.paired import pair_table, verdict


@dataclass(frozen=True)
class CompareOptions:
    """Compare two runs, or two networks on labelled images.

    Without --data, both runs must have been tested on the same images. Prints a table and a
    verdict, which McNemar's exact test decides.
    """

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a finished run, or, with --data, a bundle. The table calls it A."""
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Another one, called B."""
    data: Annotated[str | None, option("DATA")] = None
    """Labelled images to measure both on, in any form that `thawnet train` takes. No picture is
    drawn."""
    data_dir: Annotated[Path | None, option("FOLDER")] = None
    """For cifar10 and cifar100: the folder that holds the data. Default: download it."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = AS_IT_IS
    """How DATA is read, as for `train`."""
    out: Annotated[Path, option("FILE")] = Path("compare.png")
    """The picture to draw, a PNG. An existing file is replaced."""


def compare(options: CompareOptions) -> None:
    """Print a comparison, the verdict last; without --data, draw it too."""
    if options.data is not None:
        _measured(options, options.data)
        return
    if options.data_dir is not None or options.reading != AS_IT_IS:
        raise UsageError("options that say how DATA is read need --data")
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
    """Measure two networks on the same labelled images and print the comparison."""
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
        verdict(pairs, "images that neither learned from"),
    ):
        console.result(line)
