"""What a phase trains: the thawed layers, their optimiser, and their average."""

from __future__ import annotations

import copy

from ..model.backbone import Network, mend_strided_depthwise
from ..recipe import Phase
from .loop import Ema, make_optimizer
from .machine import Machine


class Tail:
    """The stages of a network that one phase trains, thawed in place.

    part: those stages as one module. averaged: a second network, in which `ema` keeps the average
    if the phase asks for one.
    """

    def __init__(self, network: Network, phase: Phase, machine: Machine) -> None:
        network.thaw(phase.train_from)
        if machine.mends:
            mend_strided_depthwise(network.net)
        self.split = network.split(phase.train_from)
        self.part = network.part(self.split)
        named = network.trainable()
        self.parameters = list(named.values())
        self.optimizer = make_optimizer(named, phase)
        self.averaged = copy.deepcopy(network)
        self.ema = Ema(network.net, self.averaged.net, phase.ema) if phase.ema else None


def compiles(network: Network, phase: Phase, machine: Machine, images: int) -> bool:
    """Whether a phase is compiled on so many training images; a head alone never is."""
    only_head = network.split(phase.train_from) == len(network.stages) - 1
    return not only_head and machine.compiles(images * phase.epochs, network.size)
