"""The evidence that fine-tuning pays: both networks of a run on images they did not learn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..core.text import counted
from ..metrics.calibration import fit_temperature


@dataclass(frozen=True)
class Side:
    """A network on images that it did not learn from."""

    hits: int
    loss: float
    """Mean cross-entropy in nats, after the temperature that suits it best."""


@dataclass(frozen=True)
class Evidence:
    """The head alone and the fine-tuned network on the same images."""

    images: int
    head: Side
    tuned: Side
    error: float
    """Standard error of the difference of the losses, from the differences of each image."""

    @property
    def better(self) -> bool:
        """Whether fine-tuning has the lower loss, for sure (a standard error) or no fewer hits."""
        gain = self.head.loss - self.tuned.loss
        return gain > self.error or (gain > 0 and self.tuned.hits >= self.head.hits)

    @property
    def decided(self) -> bool:
        """Whether the losses differ by more than two standard errors."""
        return abs(self.head.loss - self.tuned.loss) > 2 * self.error

    def sentence(self, part: str) -> str:
        """Return what was found, for a person; part: what the images are called."""
        decision = "fine-tuning is kept"
        if not self.better:
            decision = "fine-tuning is not kept, the head alone is the result"
        return (
            f"{decision}: {self.tuned.hits:,} of {counted(self.images, f'{part} image')} are right "
            f"with it (calibrated loss {self.tuned.loss:.3f}), {self.head.hits:,} without "
            f"({self.head.loss:.3f})"
        )


def weigh(head: torch.Tensor, tuned: torch.Tensor, labels: torch.Tensor) -> Evidence:
    """Weigh two networks' logits, (n, classes), of images that neither learnt from; labels: (n,).

    By log loss, which tells more of few images than hits do, each after its own temperature, as
    the bundle will have one; and by hits, which are what people ask for.
    """
    losses = [
        F.cross_entropy(
            logits.double() / fit_temperature(logits.numpy(), labels.numpy()),
            labels,
            reduction="none",
        )
        for logits in (head, tuned)
    ]
    alone, thawed = (
        Side(int((logits.argmax(1) == labels).sum()), float(loss.mean()))
        for logits, loss in zip((head, tuned), losses, strict=True)
    )
    gain = losses[0] - losses[1]
    error = float(gain.std()) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
    return Evidence(len(gain), alone, thawed, error)
