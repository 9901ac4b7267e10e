"""From pixels to calibrated probabilities: what programs on phones expect of a classifier."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..bundle.format import Description
from ..bundle.model import Model, softmax
from ..bundle.onnx import from_pixels
from ..core.errors import BundleError
from ..training.gate import outputs
from .page.network import MOST_OFF
from .pt2 import rebuild


class Probabilities(torch.nn.Module):
    """A bundle's network with its temperature, as a module in evaluation mode."""

    def __init__(self, description: Description, channels_first: bool = False) -> None:
        """channels_first: images are (n, 3, crop, crop), else (n, crop, crop, 3); 0 to 255."""
        super().__init__()
        meaning = description.meaning
        self.whole = from_pixels(outputs(rebuild(description)), meaning.preprocess)
        self.temperature, self.channels_first = meaning.temperature, channels_first
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return probabilities, (n, classes)."""
        pixels = image.permute(0, 2, 3, 1) if self.channels_first else image
        logits: torch.Tensor = self.whole(pixels)[0]
        return torch.softmax(logits / self.temperature, 1)


def moved(
    probabilities: NDArray[np.float32], model: Model, squares: NDArray[np.uint8], form: str
) -> float:
    """Return by how much another form of a network moves any probability of squares at most.

    Raises BundleError, naming the form, if that is more than MOST_OFF.
    """
    reference = softmax(model.outputs(squares).logits / model.temperature)
    most = float(np.abs(probabilities - reference).max())
    if not most <= MOST_OFF:
        raise BundleError(f"the network computes something else once exported to {form}")
    return most
