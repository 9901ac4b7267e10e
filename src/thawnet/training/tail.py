"""What a phase trains: the thawed layers, their optimiser, and their average."""

from __future__ import annotations

import copy
import logging

import torch
from torch import nn

from ..model.backbone import Network, mend_strided_depthwise
from ..recipe import Phase
from .loop import Ema, Learner, make_optimizer
from .machine import Machine
from .ranks import ALONE, World


class Tail:
    """The stages of a network that one phase trains, thawed in place.

    averaged: a second network, in which the exponential average is kept if the phase asks for one.
    kept: the network that counts: that one, or the one that trains.
    """

    def __init__(
        self,
        network: Network,
        phase: Phase,
        machine: Machine,
        compiled: bool = False,
        world: World = ALONE,
    ) -> None:
        network.thaw(phase.train_from)
        if machine.mends:
            mend_strided_depthwise(network.net)
        self.split = network.split(phase.train_from)
        named = network.trainable()
        self.averaged = copy.deepcopy(network)
        ema = Ema(network.net, self.averaged.net, phase.ema) if phase.ema else None
        self.kept = self.averaged if ema else network
        part: nn.Module = network.part(self.split)
        if compiled:
            # It warns of a missing CUDA runtime, of which the run's first line has told already.
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
            part = torch.compile(part, dynamic=False)  # type: ignore[assignment]
        self.learner = Learner(
            compute=world.wrap(part),
            parameters=list(named.values()),
            optimizer=make_optimizer(named, phase),
            ema=ema,
            phase=phase,
            machine=machine,
            world=world,
        )


def compiles(network: Network, phase: Phase, machine: Machine, images: int) -> bool:
    """Whether a phase is compiled on so many training images; a head alone never is."""
    only_head = network.split(phase.train_from) == len(network.stages) - 1
    return not only_head and machine.compiles(images * phase.epochs, network.size)
