"""The evidence that fine-tuning pays: both networks of a run on images they did not learn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..core.text import counted
from ..metrics.calibration import fit_temperature


@dataclass(frozen=True)
class Comparison:
    """The head alone and the fine-tuned network on the same images."""

    images: int
    head: float
    """Mean cross-entropy of the head in nats, after the temperature that suits it best."""
    tuned: float
    """The same of the fine-tuned network."""
    error: float
    """Standard error of the difference, from the differences of each image."""

    @property
    def better(self) -> bool:
        """Whether fine-tuning is better by more than one standard error."""
        return self.head - self.tuned > self.error

    @property
    def hopeless(self) -> bool:
        """Whether fine-tuning is worse by more than two standard errors."""
        return self.tuned - self.head > 2 * self.error

    @property
    def beyond_doubt(self) -> bool:
        """Whether it is better by more than two."""
        return self.head - self.tuned > 2 * self.error

    def sentence(self, part: str) -> str:
        """Return what was found, for a person; part: what the images are called."""
        losses = (
            f"on {counted(self.images, f'{part} image')} its loss is {self.tuned:.3f}, that of the "
            f"head alone {self.head:.3f}"
        )
        if self.better:
            return f"fine-tuning is kept: calibrated, {losses}"
        less = "not lower" if self.tuned >= self.head else "not surely lower"
        return f"the head alone is kept, fine-tuning is {less}: calibrated, {losses}"


def compare(head: torch.Tensor, tuned: torch.Tensor, labels: torch.Tensor) -> Comparison:
    """Compare two networks' logits, (n, classes), of images that neither learnt from; labels: (n,).

    By log loss, which tells more of few images than hits do, each after its own temperature, as
    the bundle will have one.
    """
    losses = [
        F.cross_entropy(
            logits.double() / fit_temperature(logits.numpy(), labels.numpy()),
            labels,
            reduction="none",
        )
        for logits in (head, tuned)
    ]
    gain = losses[0] - losses[1]
    error = float(gain.std()) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
    return Comparison(len(gain), float(losses[0].mean()), float(losses[1].mean()), error)
