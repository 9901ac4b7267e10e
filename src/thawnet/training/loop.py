"""The epoch: batches in, gradients, a step; and its mirror, evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ..data.store import Progress
from ..errors import DivergedError
from ..recipe import Phase
from .features import Batch
from .machine import Machine
from .mixing import mix

CHECK_EVERY = 50  # steps between two looks at the device for NaN; each look waits for it


@dataclass(frozen=True)
class Metrics:
    """Mean cross-entropy without label smoothing in nats, share of hits, images counted."""

    loss: float
    accuracy: float
    images: int


class Ema:
    """Exponential moving average of the tensors of a module, in a second module of its shape.

    The decay warms up as (1 + t) / (10 + t), as TensorFlow's ExponentialMovingAverage does.
    """

    def __init__(self, live: nn.Module, averaged: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = _floats(live)
        self.averaged = _floats(averaged)

    def update(self, step: int) -> None:
        """Take in the live tensors after optimiser step number `step`, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averaged, self.live, 1 - decay)


def _floats(module: nn.Module) -> list[torch.Tensor]:
    return [value.detach() for value in module.state_dict().values() if value.is_floating_point()]


def make_optimizer(parameters: dict[str, nn.Parameter], phase: Phase) -> torch.optim.Optimizer:
    """Return the phase's optimiser; norms and biases (one dimension) get no weight decay."""
    matrices = [value for value in parameters.values() if value.dim() > 1]
    vectors = [value for value in parameters.values() if value.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": phase.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=phase.lr, eps=phase.epsilon, fused=True)


def epsilon(phase: Phase, step: int) -> float:
    """Return the optimiser's epsilon for a step, from 0.

    Keras adds it before the bias correction of the second moment (the "epsilon hat" of Kingma and
    Ba 2015, end of section 2), torch after: dividing by the correction makes them equal. In the
    first steps the difference is thirtyfold, and seen in the loss.
    """
    if phase.optimizer == "keras-adam":
        return phase.epsilon / math.sqrt(1 - 0.999 ** (step + 1))
    return phase.epsilon


def rate(phase: Phase, step: int, steps: int) -> float:
    """Return the learning rate of a step, 0 to steps - 1."""
    if phase.schedule == "constant":
        return phase.lr
    rising = max(1, round(phase.warmup * steps))
    if step < rising:
        return phase.lr * (step + 1) / rising
    return phase.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def batches(count: int, phase: Phase, key: list[int]) -> list[NDArray[np.int64]]:
    """Return the positions of each batch of an epoch, shuffled by `key`.

    drop_last leaves out a last batch smaller than the others. One of a single image is always left
    out: batch-norm has no variance to normalise it by.
    """
    size = phase.batch_size
    order = np.random.default_rng(key).permutation(count)
    whole = [order[start : start + size] for start in range(0, count, size)]
    least = size if phase.drop_last else 2
    return whole[:-1] if len(whole[-1]) < least and len(whole) > 1 else whole


def train_epoch(
    tail: Callable[[torch.Tensor], torch.Tensor],
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    batch: Batch,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None,
    order: list[NDArray[np.int64]],
    phase: Phase,
    first_step: int,
    steps: int,
    seed: int,
    machine: Machine,
    progress: Progress,
) -> Metrics:
    """Train on every batch of `order` once. Raises DivergedError on NaN or infinity.

    labels: (n,) on the device. class_weights: (classes,) on the device, or None. first_step:
    optimiser steps already done of `steps` in the phase. seed: of the mixing.
    The metrics are running ones: of each batch before its own step, as training sees it.
    """
    device = machine.torch_device
    totals = torch.zeros(3, device=device, dtype=torch.float64)  # loss, hits, broken steps
    for place, positions in enumerate(order):
        step = first_step + place
        x, y = batch(positions), labels[torch.from_numpy(positions).to(device)]
        partners, share = None, 1.0
        if phase.mixup or phase.cutmix:
            x, partners, share = mix(x, phase, np.random.default_rng([seed, step, 0x313]))
        for group in optimizer.param_groups:
            group["lr"], group["eps"] = rate(phase, step, steps), epsilon(phase, step)
        with machine.autocast():
            logits = tail(x).float()  # (n, classes)
        loss = share * _loss(logits, y, class_weights, phase)
        if partners is not None and share < 1:
            loss = loss + (1 - share) * _loss(logits, y[partners], class_weights, phase)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer.step()
        if ema is not None:
            ema.update(step)
        with torch.no_grad():
            plain = F.cross_entropy(logits, y, reduction="sum")
            hits = (logits.argmax(1) == y).sum()
            totals += torch.stack([plain, hits, (~torch.isfinite(loss + norm)).double()])
        if place % CHECK_EVERY == 0 or place == len(order) - 1:
            _check(totals, phase, step)
        progress(len(positions))
    seen = sum(len(positions) for positions in order)
    loss_sum, hit_sum, _ = totals.tolist()
    return Metrics(loss_sum / seen, hit_sum / seen, seen)


def _loss(
    logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor | None, phase: Phase
) -> torch.Tensor:
    if class_weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=phase.label_smoothing)
    # Divided by the images, not by the batch's own weights, as torch's mean would: a batch without
    # rare images must not count as much as one with them.
    each = F.cross_entropy(
        logits,
        labels,
        weight=class_weights,
        label_smoothing=phase.label_smoothing,
        reduction="none",
    )
    return each.mean()


def class_weights(labels: NDArray[np.int64], classes: int) -> torch.Tensor:
    """Return (classes,) weights by which every class counts alike; their mean over images is 1."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (classes * np.maximum(counts, 1))).float()


def _check(totals: torch.Tensor, phase: Phase, step: int) -> None:
    if totals[2] > 0:
        raise DivergedError(
            f"loss or gradient became NaN or infinite by step {step + 1}; "
            f"try a smaller learning rate than {phase.lr:g} (--lr)"
        )


def evaluate(
    part: Callable[[torch.Tensor], torch.Tensor],
    batch: Batch,
    labels: NDArray[np.int64],
    size: int,
    progress: Progress,
) -> tuple[Metrics, NDArray[np.float32]]:
    """Return the metrics and the logits, (n, classes) float32, of a frozen part on all images."""
    chunks: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(labels), size):
            positions = np.arange(start, min(start + size, len(labels)))
            chunks.append(part(batch(positions)).float().cpu().numpy())
            progress(len(positions))
    logits = np.concatenate(chunks)
    losses = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    hits = float((logits.argmax(1) == labels).mean())
    return Metrics(float(losses), hits, len(labels)), logits
