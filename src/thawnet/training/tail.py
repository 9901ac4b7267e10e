"""The tail of a network: the layers that a phase trains, their optimiser and weight average."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
from torch import nn

from ..model.backbone import Network
from ..model.depthwise import mend_depthwise
from ..model.thawing import thaw
from .loop import Ema, Learner, make_optimizer
from .machine import Machine
from .plan import PhasePlan
from .ranks import ALONE, World

GRAPH_PASSES = 3  # the first compiles, the second is recorded, the third replays


class Tail:
    """The stages of a network that one phase trains, thawed in place.

    averaged: a second network, which holds the exponential moving average if the phase has one.
    evaluated: the network to evaluate: `averaged` if the phase has one, else the one that trains.
    """

    def __init__(
        self,
        network: Network,
        plan: PhasePlan,
        machine: Machine,
        world: World = ALONE,
    ) -> None:
        phase = plan.phase
        self._network = network
        thaw(network, plan.layer)
        if machine.mends:
            mend_depthwise(network.net)
        named = network.trainable()
        self.averaged = copy.deepcopy(network)
        ema = Ema(network.net, self.averaged.net, phase.ema) if phase.ema else None
        self.evaluated = self.averaged if ema else network
        part: nn.Module = network.part(plan.split)
        self._eager = part
        if plan.compiled:
            # It warns of a missing CUDA runtime, which the run's first line has already shown.
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
            # CUDA graphs save the launches of a step's kernels, but gradients that ranks exchange
            # must not lie in a graph's memory.
            mode = "reduce-overhead" if machine.device == "cuda" and world.size == 1 else "default"
            part = torch.compile(part, dynamic=False, mode=mode)  # type: ignore[assignment] # a callable
        self.learner = Learner(
            compute=world.wrap(part),
            parameters=list(named.values()),
            optimizer=make_optimizer(named, phase, network.depths, network.undecayed),
            ema=ema,
            phase=phase,
            machine=machine,
            world=world,
        )

    def warm_up(self, x: torch.Tensor) -> None:
        """Compile the training step by passes that change no state. x: a batch of its input."""
        for _ in range(GRAPH_PASSES if x.is_cuda else 1):
            self._pass(self.learner.compute, x)

    def fits(self, read: Callable[[], torch.Tensor]) -> bool:
        """Return whether a step on what `read` returns fits a GPU's memory; change no state.

        The step is tried uncompiled, which takes as much memory or more. On a CPU it always fits.
        """
        if self.learner.machine.device != "cuda":
            return True
        enough = True
        try:
            self._pass(self._eager, read())
        except torch.OutOfMemoryError:
            enough = False  # what the error holds is freed only after this clause
        self.learner.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return enough

    def _pass(self, compute: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
        """Run forward and backward, then restore the batch-norm statistics."""
        before = {name: value.clone() for name, value in self._network.net.named_buffers()}
        optimizer = self.learner.optimizer
        optimizer.zero_grad(set_to_none=True)
        try:
            with self.learner.machine.autocast():
                total = compute(x).float().sum()
            total.backward()
        finally:
            for name, value in self._network.net.named_buffers():
                value.copy_(before[name])
        optimizer.zero_grad(set_to_none=True)
