"""The images that a run's starting weights have already learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle.format import are_among, read_description, read_trained_on
from ..core import console
from ..core.errors import BundleError
from ..core.text import counted
from .plan import NAMES


def say_learnt_before(weights: str, hashes: NDArray[np.uint8]) -> None:
    """Report how many of the measured images the starting weights have already learned from.

    weights: as for --weights; only a run or bundle records its images. hashes: of the measured
    images, (n, 32). A network is better on images that its ancestor learned from, whatever it
    learns now.
    """
    try:
        ancestor = read_description(Path(weights))
        known = read_trained_on(ancestor)
    except (BundleError, OSError):
        return  # another form of weights
    if ancestor.facts.get("kept") == NAMES[0]:
        return  # only its head learned, and that is replaced
    count = int(are_among(hashes, known).sum())
    if count:
        console.say(
            f"'{weights}' had learnt from, or was chosen by, {count:,} of the "
            f"{counted(len(hashes), 'image')} that measure this network, whose accuracy is "
            "therefore too high"
        )
