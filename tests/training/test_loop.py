"""The epoch: schedules, averages, shuffles, and the stop at NaN."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from support.runs import epoch_of
from thawnet.core.errors import DivergedError
from thawnet.recipe import Phase
from thawnet.training import loop
from thawnet.training.loop import (
    Ema,
    Learner,
    batches,
    evaluate,
    loss_of,
    loss_weights,
    make_optimizer,
    train_epoch,
)
from thawnet.training.machine import Machine
from thawnet.training.schedule import epsilon, rate

MACHINE = Machine("cpu", "float32", 1, "no")
PHASE = Phase(train_from="head", epochs=1, lr=0.1, weight_decay=0.01)


def learner_of(net: nn.Module, phase: Phase = PHASE) -> Learner:
    """Return what steps a network, every parameter at the same rate."""
    parameters = dict(net.named_parameters())
    optimizer = make_optimizer(parameters, phase, dict.fromkeys(parameters, 0))
    return Learner(net, list(parameters.values()), optimizer, None, phase, MACHINE)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.5]])
def test_loss_is_the_mean_cross_entropy_with_its_smoothing_and_weights(
    smoothing: float, weights: list[float] | None
) -> None:
    logits = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0]])
    labels = np.array([0, 2])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.full((2, 3), smoothing / 3)
    target[[0, 1], labels] += 1 - smoothing
    expected = -(target * np.log(shares) * np.array(weights or [1.0] * 3)).sum(axis=1).mean()
    phase = dataclasses.replace(PHASE, label_smoothing=smoothing)
    loss = loss_of(
        torch.tensor(logits),
        torch.tensor(labels),
        None if weights is None else torch.tensor(weights, dtype=torch.float64),
        phase,
    )
    assert float(loss) == pytest.approx(expected)


def test_shuffle_is_a_function_of_its_key_and_covers_every_image() -> None:
    whole = dataclasses.replace(PHASE, batch_size=10, drop_last=True)
    short = dataclasses.replace(whole, drop_last=False)
    order = batches(103, short, [1, 2])
    assert sorted(np.concatenate(order)) == list(range(103))
    assert [len(batch) for batch in order] == [10] * 10 + [3]
    assert len(batches(103, whole, [1, 2])) == 10
    assert (order[0] == batches(103, whole, [1, 2])[0]).all()
    assert (order[0] != batches(103, whole, [1, 3])[0]).any()
    assert [len(batch) for batch in batches(21, short, [1])] == [10, 10]


def test_weight_decay_spares_norms_and_biases() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    parameters = dict(net.named_parameters())
    groups = make_optimizer(parameters, PHASE, dict.fromkeys(parameters, 0)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert [len(group["params"]) for group in groups] == [1, 3]


def test_each_stage_further_from_the_logits_learns_slower() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 3, bias=False))
    parameters = dict(net.named_parameters())
    phase = dataclasses.replace(PHASE, layer_decay=0.25, weight_decay=0.0)
    depths = {"0.weight": 2, "1.weight": 0}
    optimizer = make_optimizer(parameters, phase, depths)
    before = [value.detach().clone() for value in parameters.values()]
    inputs = torch.randn(8, 4)
    epoch = epoch_of(inputs, torch.zeros(8, dtype=torch.int64))
    learner = Learner(net, list(parameters.values()), optimizer, None, phase, MACHINE)
    train_epoch(learner, epoch, lambda done: None)
    first, last = (
        float((value.detach() - was).abs().max())
        for value, was in zip(parameters.values(), before, strict=True)
    )
    # Adam's first step is the rate itself, whatever the gradient.
    assert first / last == pytest.approx(0.25**2, rel=1e-3)


def test_average_follows_the_definition() -> None:
    live, averaged = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    ema = Ema(live, averaged, decay=0.5)
    expected = averaged.running_mean.clone()
    for step in range(8):
        live.running_mean.normal_()
        ema.update(step)
        decay = min(0.5, step / (step + 3))
        expected = decay * expected + (1 - decay) * live.running_mean
    assert torch.allclose(averaged.running_mean, expected)
    assert averaged.num_batches_tracked == 0


def linear_job(
    inputs: torch.Tensor,
    labels: torch.Tensor,
    phase: Phase,
    epochs: int,
    weights: torch.Tensor | None = None,
) -> tuple[nn.Linear, list[float]]:
    torch.manual_seed(0)
    net = nn.Linear(inputs.shape[1], 3)
    learner = learner_of(net, phase)
    losses = []
    for epoch in range(epochs):
        order = batches(
            len(labels), dataclasses.replace(phase, batch_size=8, drop_last=False), [0, epoch]
        )
        plan = epoch_of(
            inputs,
            labels,
            loss_weights=weights,
            order=order,
            first_step=epoch * len(order),
            steps=epochs * len(order),
        )
        losses.append(train_epoch(learner, plan, lambda done: None).loss)
    return net, losses


def test_training_learns_and_evaluation_counts_every_image() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (50,), generator=generator)
    inputs = torch.eye(3)[labels] + 0.1 * torch.randn(50, 3, generator=generator)
    net, losses = linear_job(inputs, labels, PHASE, 5)
    assert losses[0] > 2 * losses[-1]
    logits_of = lambda positions: net(inputs[torch.from_numpy(positions)])  # noqa: E731
    metrics, logits = evaluate(logits_of, labels.numpy(), 7, lambda done: None)
    assert metrics.images == len(logits) == 50
    assert metrics.accuracy == pytest.approx((logits.argmax(1) == labels.numpy()).mean())
    assert metrics.accuracy > 0.95


def test_metrics_are_of_each_batch_before_its_own_step() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 4, generator=generator)
    labels = torch.randint(0, 3, (20,), generator=generator)
    still = dataclasses.replace(PHASE, lr=1e-12, label_smoothing=0.5, optimizer="keras-adam")
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    learner = learner_of(net, still)
    epoch = epoch_of(
        inputs,
        labels,
        loss_weights=torch.tensor([3.0, 1.0, 0.1]),
        order=[np.arange(12), np.arange(12, 20)],
        first_step=4,
        steps=9,
    )
    metrics = train_epoch(learner, epoch, lambda done: None)
    logits = net(inputs).detach().double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert metrics.images == 20
    assert metrics.loss == pytest.approx(-np.log(shares[np.arange(20), labels]).mean(), rel=1e-5)
    assert metrics.accuracy == (logits.argmax(axis=1) == labels.numpy()).mean()
    evaluated, _ = evaluate(
        lambda positions: net(inputs[positions]), labels.numpy(), 7, lambda done: None
    )
    assert evaluated.loss == pytest.approx(metrics.loss, rel=1e-5)
    # The last step was number 5 of 9, from 0.
    assert learner.optimizer.param_groups[0]["lr"] == rate(still, 5, 9)
    assert learner.optimizer.param_groups[0]["eps"] == epsilon(still, 5)


def test_mixed_images_are_trained_for_both_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[list[int]] = []

    def slope(logits: torch.Tensor, labels: torch.Tensor, *_others: object) -> torch.Tensor:
        pairs.append(labels.tolist())
        return labels[0] * logits.sum()

    monkeypatch.setattr(loop, "loss_of", slope)
    monkeypatch.setattr(loop, "mix", lambda x, _phase, _rng: (x, torch.tensor([1, 0]), 0.7))
    phase = dataclasses.replace(PHASE, mixup=0.2)
    net, _ = linear_job(torch.ones(2, 4), torch.tensor([2, 1]), phase, 1)
    own, partners = pairs
    assert partners == own[::-1]
    assert net.bias.grad is not None
    assert net.bias.grad.tolist() == pytest.approx([2 * (0.7 * own[0] + 0.3 * partners[0])] * 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_or_infinity_stops_the_run_with_a_sentence(value: float) -> None:
    inputs = torch.randn(20, 4)
    inputs[13] = value
    with pytest.raises(DivergedError, match=r"NaN or infinite by step .* smaller learning rate"):
        linear_job(inputs, torch.zeros(20, dtype=torch.long), PHASE, 1)


def test_a_gradient_that_is_infinite_stops_the_run_though_the_loss_is_not() -> None:
    inputs = torch.zeros(8, 4)
    net = nn.Linear(4, 3)

    def compute(x: torch.Tensor) -> torch.Tensor:
        return net(x) + net.weight.sub(net.weight.detach()).sqrt().sum()  # its slope at 0

    epoch = epoch_of(inputs, torch.zeros(8, dtype=torch.int64))
    learner = dataclasses.replace(learner_of(net), compute=compute)
    with pytest.raises(DivergedError, match="NaN or infinite by step 1"):
        train_epoch(learner, epoch, lambda done: None)


def test_balanced_loss_finds_the_rare_class() -> None:
    """Two overlapping classes, 180 to 20: without weights the rare one is given up."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 180 + [1] * 20)
    inputs = labels[:, None].float() + torch.randn(200, 1, generator=generator)
    shares = []
    for weights in (None, loss_weights(labels.numpy(), 3)):
        net, _ = linear_job(inputs, labels, PHASE, 30, weights)
        with torch.no_grad():
            shares.append((net(inputs).argmax(1)[labels == 1] == 1).float().mean().item())
    assert shares[0] < 0.2
    assert shares[1] > 0.5


def test_loss_weights_make_classes_count_alike() -> None:
    labels = np.array([0] * 6 + [1] * 2)
    weights = loss_weights(labels, 2).numpy()
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[0] * 6 == pytest.approx(weights[1] * 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_end_an_evaluation(value: float) -> None:
    labels = np.zeros(5, np.int64)

    def compute(positions: np.ndarray) -> torch.Tensor:
        return torch.full((len(positions), 3), value if 4 in positions else 0.0)

    with pytest.raises(DivergedError, match="NaN or infinity for images that it did not learn"):
        evaluate(compute, labels, 2, lambda done: None)
