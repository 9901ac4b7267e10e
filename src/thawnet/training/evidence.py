"""Evidence for or against fine-tuning: a comparison of a run's networks on held-out images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..core.text import counted
from ..metrics.calibration import fit_temperature


@dataclass(frozen=True)
class Side:
    """Results of a network on held-out images."""

    hits: int
    loss: float
    """Mean cross-entropy in nats, with the temperature fitted to these images."""


@dataclass(frozen=True)
class Evidence:
    """Results of the head alone and of the fine-tuned network on the same images."""

    images: int
    head: Side
    tuned: Side
    error: float
    """Standard error of the difference in loss, from the per-image differences."""

    @property
    def better(self) -> bool:
        """Whether fine-tuning lowers the loss by over a standard error, or without losing hits."""
        gain = self.head.loss - self.tuned.loss
        return gain > self.error or (gain > 0 and self.tuned.hits >= self.head.hits)

    @property
    def decided(self) -> bool:
        """Whether the losses differ by more than two standard errors."""
        return abs(self.head.loss - self.tuned.loss) > 2 * self.error

    def sentence(self, part: str) -> str:
        """Return the decision and its figures as a sentence. part: what the images are called."""
        decision = "fine-tuning is kept"
        if not self.better:
            decision = "fine-tuning is not kept, the head alone is the result"
        return (
            f"{decision}: {self.tuned.hits:,} of {counted(self.images, f'{part} image')} are right "
            f"with it (calibrated loss {self.tuned.loss:.3f}), {self.head.hits:,} without "
            f"({self.head.loss:.3f})"
        )


def weigh(head: torch.Tensor, tuned: torch.Tensor, labels: torch.Tensor) -> Evidence:
    """Compare two networks' logits, (n, classes), of held-out images with these labels, (n,).

    The log loss says more about few images than hits do. Each network's is taken with its own
    fitted temperature, as in the bundle. Hits are counted too, as people ask for them.
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
