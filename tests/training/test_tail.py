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
