"""What the run or bundle that a training starts from has learnt already."""

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
    """Say how many of the images that measure an accuracy the starting weights know already.

    weights: as --weights names them; only a run or bundle tells. hashes: of the images, (n, 32). A
    network is better on images that its ancestor learnt from, whatever it learns now.
    """
    try:
        ancestor = read_description(Path(weights))
        known = read_trained_on(ancestor)
    except (BundleError, OSError):
        return  # another form of weights
    if ancestor.facts.get("kept") == NAMES[0]:
        return  # only its head learnt, and that is not taken over
    count = int(are_among(hashes, known).sum())
    if count:
        console.say(
            f"'{weights}' had learnt from, or was chosen by, {count:,} of the "
            f"{counted(len(hashes), 'image')} that measure this network, whose accuracy is "
            "therefore too high"
        )
