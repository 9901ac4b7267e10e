"""One epoch of training, and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ..core.errors import DivergedError
from ..data.device import sent
from ..data.store import Progress
from ..recipe import Phase
from .machine import Machine
from .mixing import mix
from .ranks import ALONE, World
from .schedule import epsilon, rate
from .trunk.feeds import Batch

CHECK_EVERY = 50  # steps between checks for NaN, each of which waits for the device


@dataclass(frozen=True)
class Metrics:
    """Mean cross-entropy in nats, without label smoothing; share of hits; number of images."""

    loss: float
    accuracy: float
    images: int


class Ema:
    """Exponential moving average of a module's tensors, in a second module of the same shape.

    It begins as a polynomial-decay average, which forgets the first steps quickly and still
    averages over a share of all steps: step t has weight (ETA + 1) / (t + ETA) (Shamir and Zhang
    2013, "Stochastic gradient descent for non-smooth optimization", section 4, t from 1).
    """

    ETA = 2

    def __init__(self, live: nn.Module, averaged: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = _floats(live)
        self.averaged = _floats(averaged)

    def update(self, step: int) -> None:
        """Update the average after optimiser step number `step`, from 0."""
        decay = min(self.decay, step / (step + 1 + self.ETA))
        torch._foreach_lerp_(self.averaged, self.live, 1 - decay)


def _floats(module: nn.Module) -> list[torch.Tensor]:
    return [value.detach() for value in module.state_dict().values() if value.is_floating_point()]


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    phase: Phase,
    depths: Mapping[str, int],
    undecayed: Collection[str] = (),
) -> torch.optim.Optimizer:
    """Return the phase's optimiser; norms and biases (one dimension) get no weight decay.

    undecayed: further parameters without weight decay. depths: number of stages between each
    parameter and the logits. Each stage multiplies the learning rate by `layer_decay` (Howard and
    Ruder 2018, "Universal language model fine-tuning for text classification", section 3.2); the
    product is the group's "scale".
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, value in parameters.items():
        decays = value.dim() > 1 and name not in undecayed
        key = (phase.layer_decay ** depths[name], decays)
        groups.setdefault(key, []).append(value)
    return torch.optim.AdamW(
        [
            {"params": group, "scale": scale, "weight_decay": phase.weight_decay if decays else 0.0}
            for (scale, decays), group in groups.items()
        ],
        lr=phase.lr,
        eps=phase.epsilon,
        fused=True,
    )


def batches(count: int, phase: Phase, key: list[int], ranks: int = 1) -> list[NDArray[np.int64]]:
    """Return the positions of each batch of an epoch, shuffled by `key`.

    drop_last skips a last batch that is smaller than the others. One with fewer than two images
    for each of the `ranks` that share it is always skipped, as batch-norm cannot normalise a single
    image.
    """
    size = phase.batch_size
    order = np.random.default_rng(key).permutation(count)
    whole = [order[start : start + size] for start in range(0, count, size)]
    least = size if phase.drop_last else 2 * ranks
    return whole[:-1] if len(whole[-1]) < least and len(whole) > 1 else whole


@dataclass(frozen=True)
class Learner:
    """Everything one optimiser step needs."""

    compute: Callable[[torch.Tensor], torch.Tensor]
    """Maps activations (n, ...) to logits (n, classes); averages gradients over the ranks."""
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    phase: Phase
    machine: Machine
    world: World = ALONE


@dataclass(frozen=True)
class Epoch:
    """The batches and labels of one epoch."""

    batch: Batch
    labels: torch.Tensor
    """(n,) on the device."""
    loss_weights: torch.Tensor | None
    """(classes,) on the device."""
    order: list[NDArray[np.int64]]
    """Positions of each batch."""
    first_step: int
    """Optimiser steps of the phase's earlier epochs."""
    steps: int
    """Optimiser steps of the whole phase."""
    seed: int
    """Seed of mixup and CutMix."""


Totals = list[float]  # sums over the training images so far: loss, hits, broken steps


def train_epoch(
    learner: Learner,
    epoch: Epoch,
    progress: Progress,
    totals: Totals | None = None,
    done: int = 0,
    between: Callable[[int, torch.Tensor], None] | None = None,
) -> Metrics:
    """Train on every batch of an epoch once. Raises DivergedError on NaN or infinity.

    Several ranks share every batch. between: called after each step with the number of batches done
    and the totals, (3,). totals, done: the last arguments of `between` in an interrupted epoch. The
    metrics are running ones: each batch is measured before its own step.
    """
    phase, machine, world = learner.phase, learner.machine, learner.world
    optimizer, device = learner.optimizer, machine.torch_device
    sums = sent(np.array(totals or [0.0] * 3, machine.sum_dtype), device)
    progress(sum(map(len, epoch.order[:done])))
    for number, positions in enumerate(epoch.order[done:], start=done):
        step = epoch.first_step + number
        own = world.everybody.own(positions)
        x, y = epoch.batch(own), epoch.labels[sent(own, device)]
        partners, share = None, 1.0
        if phase.mixup or phase.cutmix:
            rng = np.random.default_rng([epoch.seed, step, 0x313, world.everybody.rank])
            x, partners, share = mix(x, phase, rng)
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * rate(phase, step, epoch.steps)
            group["eps"] = epsilon(phase, step)
        # Before the forward pass, as a CUDA graph's gradients lie where its next pass computes.
        optimizer.zero_grad(set_to_none=True)
        with machine.autocast():
            logits = learner.compute(x).float()  # (n, classes)
        loss = share * loss_of(logits, y, epoch.loss_weights, phase)
        if partners is not None and share < 1:
            loss = loss + (1 - share) * loss_of(logits, y[partners], epoch.loss_weights, phase)
        if world.size > 1:
            # Gradients are averaged over ranks, whose shares may differ by an image.
            loss = loss * (len(own) * world.size / len(positions))
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in learner.parameters if p.grad is not None])
        optimizer.step()
        if learner.ema is not None:
            learner.ema.update(step)
        with torch.no_grad():
            plain = F.cross_entropy(logits, y, reduction="sum")
            hits = (logits.argmax(1) == y).sum()
            broken = ~torch.isfinite(loss + norm)
            sums += torch.stack([plain, hits.to(plain), broken.to(plain)])
        if number % CHECK_EVERY == 0 or number == len(epoch.order) - 1:
            _check(sums, phase, step)
        progress(len(positions))
        if between is not None:
            between(number + 1, sums)
    seen = sum(map(len, epoch.order))
    loss_sum, hit_sum, _ = world.total(sums).tolist()
    return Metrics(loss_sum / seen, hit_sum / seen, seen)


def loss_of(
    logits: torch.Tensor, labels: torch.Tensor, loss_weights: torch.Tensor | None, phase: Phase
) -> torch.Tensor:
    """Return the mean cross-entropy of a batch in nats, with the phase's label smoothing.

    logits: (n, classes). labels: (n,). loss_weights: (classes,), see `loss_weights`. With
    smoothing s, the target is 1 - s + s / classes for the label and s / classes for every other
    class (Szegedy et al. 2016, Rethinking the Inception architecture).
    """
    if loss_weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=phase.label_smoothing)
    # Divided by the number of images. torch's mean divides by the batch's weights, so that a batch
    # without rare images would count as much as one with them.
    losses = F.cross_entropy(
        logits,
        labels,
        weight=loss_weights,
        label_smoothing=phase.label_smoothing,
        reduction="none",
    )
    return losses.mean()


def loss_weights(labels: NDArray[np.int64], classes: int) -> torch.Tensor:
    """Return weights, (classes,), that make all classes count equally; mean over images 1."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (classes * np.maximum(counts, 1))).float()


def _check(sums: torch.Tensor, phase: Phase, step: int) -> None:
    if sums[2] > 0:
        raise DivergedError(
            f"loss or gradient became NaN or infinite by step {step + 1}; "
            f"try a smaller learning rate than {phase.lr:g} (--lr), or --precision float32"
        )


def evaluate(
    compute: Batch,
    labels: NDArray[np.int64],
    size: int,
    progress: Progress,
    world: World = ALONE,
    done: NDArray[np.float32] | None = None,
    between: Callable[[list[NDArray[np.float32]]], None] | None = None,
) -> tuple[Metrics, NDArray[np.float32]]:
    """Return the metrics and the logits, (n, classes) float32, on all images.

    compute: maps positions to logits, without training. size: images per batch. Ranks take whole
    batches in turn, so that their number changes no batch and no logit. done: the first logits, of
    an interrupted evaluation. between: called after each batch with all logits so far, in pieces.
    Raises DivergedError on NaN or infinity.
    """
    ranks = world.everybody
    chunks = [] if done is None else [done]
    begin = sum(map(len, chunks))
    progress(begin)
    with torch.inference_mode():
        for start in range(begin, len(labels), size * ranks.size):
            first = start + size * ranks.rank
            positions = np.arange(first, min(first + size, len(labels)))
            own = compute(positions).float().cpu().numpy() if len(positions) else None
            chunks.extend(piece for piece in ranks.gather(own) if piece is not None)
            progress(min(size * ranks.size, len(labels) - start))
            if between is not None:
                between(chunks)
    logits = np.concatenate(chunks)
    if not np.isfinite(logits).all():
        raise DivergedError(
            "the network computes NaN or infinity for images that it did not learn from; try a "
            "smaller learning rate (--lr), --precision float32 or other --weights"
        )
    return metrics_of(torch.from_numpy(logits), torch.from_numpy(labels)), logits


def metrics_of(logits: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """Return the metrics of logits, (n, classes), for images with these labels, (n,)."""
    hits = int((logits.argmax(1) == labels).sum())
    return Metrics(float(F.cross_entropy(logits, labels)), hits / len(labels), len(labels))
