"""A tail's step is made ready without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from support.runs import TINY, epoch_of, plan_of
from thawnet.model.backbone import Network
from thawnet.model.thawing import training_mode
from thawnet.recipe import Phase
from thawnet.training.loop import train_epoch
from thawnet.training.machine import Machine
from thawnet.training.tail import Tail


def some_tail(device: str) -> tuple[Network, Tail, torch.Tensor]:
    """Return a tail as on some device, its network, and a batch for it."""
    torch.manual_seed(0)
    network = Network("mobilenetv2_100", 5, 32)
    phase = Phase(train_from="blocks.6.0", epochs=1, lr=0.1)
    plan = plan_of(network, phase)
    tail = Tail(network, plan, Machine(device, "float32", 1, "no"))
    training_mode(network, "train", 0.1)
    return network, tail, torch.randn(4, *network.shapes[plan.split])


@contextmanager
def no_trace(network: Network) -> Iterator[None]:
    """Check that a block changes no tensor of a network and leaves no gradient."""
    before = {name: value.clone() for name, value in network.net.state_dict().items()}
    yield
    for name, value in network.net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in network.net.parameters())


def test_warming_up_changes_no_weight_no_statistic_and_no_gradient() -> None:
    network, tail, x = some_tail("cpu")
    with no_trace(network):
        tail.warm_up(x)
    assert not tail.learner.optimizer.state


def test_a_step_that_does_not_fit_a_gpu_leaves_no_trace() -> None:
    network, tail, x = some_tail("cuda")

    def fails(gradient: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("in the backward pass")

    with no_trace(network):
        assert tail.fits(lambda: x)
        network.head.bias.register_hook(fails)
        assert not tail.fits(lambda: x)


def test_a_cpu_is_not_tried() -> None:
    _, tail, _ = some_tail("cpu")
    assert tail.fits(lambda: torch.empty(0))


def test_the_average_is_what_counts_where_one_is_kept() -> None:
    torch.manual_seed(0)
    network = Network(TINY, 3, 32)
    plain = Phase(train_from="head", epochs=1, lr=0.1)
    machine = Machine("cpu", "float32", 1, "no")
    assert Tail(network, plan_of(network, plain), machine).evaluated is network
    tail = Tail(network, plan_of(network, replace(plain, ema=0.9)), machine)
    assert tail.evaluated is tail.averaged is not network
    before = network.head.bias.detach().clone()
    x = torch.randn(8, network.head.in_features)
    labels = torch.zeros(8, dtype=torch.int64)
    epoch = epoch_of(x, labels, order=[np.arange(8)] * 5, steps=5)
    train_epoch(tail.learner, epoch, lambda done: None)
    moved = (network.head.bias - before).abs()
    assert ((tail.evaluated.head.bias - before).abs() < moved).all()  # it lags behind
    assert (tail.evaluated.head.bias != before).all()
