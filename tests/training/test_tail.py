"""A tail's step is made ready without a trace."""

from __future__ import annotations

import torch

from thawnet.model.backbone import Network
from thawnet.recipe import Phase
from thawnet.training.machine import Machine
from thawnet.training.tail import Tail


def test_warming_up_changes_no_weight_no_statistic_and_no_gradient() -> None:
    torch.manual_seed(0)
    network = Network("mobilenetv2_100", 5, 32)
    phase = Phase(train_from="blocks.6.0", epochs=1, lr=0.1)
    tail = Tail(network, phase, Machine("cpu", "float32", 1, "no"))
    network.training_mode("train", 0.1)
    before = {name: value.clone() for name, value in network.net.state_dict().items()}
    tail.warm_up(torch.randn(4, *network.shapes[tail.split]))
    for name, value in network.net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in network.net.parameters())
    assert not tail.learner.optimizer.state


def test_a_step_that_does_not_fit_a_gpu_leaves_no_trace() -> None:
    torch.manual_seed(0)
    network = Network("mobilenetv2_100", 5, 32)
    phase = Phase(train_from="blocks.6.0", epochs=1, lr=0.1)
    tail = Tail(network, phase, Machine("cuda", "float32", 1, "no"))
    network.training_mode("train", 0.1)
    before = {name: value.clone() for name, value in network.net.state_dict().items()}
    shape = network.shapes[tail.split]

    def fails(gradient: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("in the backward pass")

    assert tail.fits(lambda: torch.randn(4, *shape))
    network.head.bias.register_hook(fails)
    assert not tail.fits(lambda: torch.randn(4, *shape))
    for name, value in network.net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in network.net.parameters())


def test_a_cpu_is_not_tried() -> None:
    network = Network("mobilenetv2_100", 5, 32)
    tail = Tail(network, Phase("head", 1, 0.1), Machine("cpu", "float32", 1, "no"))
    assert tail.fits(lambda: torch.empty(0))
