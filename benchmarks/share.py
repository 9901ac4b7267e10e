"""The share of a training epoch that is forward, backward and step, and the floor of a step.

    python benchmarks/share.py DATA_DIR WEIGHTS.safetensors --recipe full --pairs 5

Does a real phase 2 on the shards in DATA_DIR. Its epochs alternate between those of a run, drawing
and rendering the views included, and epochs over the same batches held in memory, or with --fixed
over one batch repeatedly. The latter leave the mixing, the forward and backward passes and the
step. Prints the seconds of every epoch, and the floor of a step (floor.py).
"""

from __future__ import annotations

import itertools
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

import floor
from thawnet.model.thawing import training_mode
from thawnet.recipe import TrainOptions
from thawnet.training.loop import Epoch, batches, train_epoch
from thawnet.training.phase import PhaseJob
from thawnet.training.ranks import ALONE
from thawnet.training.setup import setup
from thawnet.training.trunk.feeds import Batch

PHASE = 1


def train(job: PhaseJob, number: int, ready: list[torch.Tensor] | None = None) -> float:
    """Do one epoch, as PhaseJob does or on the batches in `ready`; return its seconds."""
    begun = time.perf_counter()
    epoch = Epoch(
        batch=served(ready) if ready else job.feed.epoch(number),
        labels=job.labels,
        loss_weights=job.run.loss_weights,
        order=order_of(job, number),
        first_step=0,
        steps=1_000_000,  # so that the learning rate stays at the start of its warm-up
        seed=job.run.recipe.seed,
    )
    train_epoch(job.tail.learner, epoch, lambda _done: None)
    if job.run.machine.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def served(ready: list[torch.Tensor]) -> Batch:
    """Return a function that cycles through `ready`, ignoring the positions."""
    remaining = itertools.cycle(ready)
    return lambda _positions: next(remaining)


def order_of(job: PhaseJob, number: int) -> list[NDArray[np.int64]]:
    """Return the positions of the images of each step of an epoch."""
    return batches(len(job.run.train), job.phase, [job.run.recipe.seed, number, 0x0BDE])


def floor_of_a_step(job: PhaseJob, x: torch.Tensor) -> dict[str, float]:
    """Return the floor of a step in seconds, and this device's ceilings. x: a batch."""
    machine = job.run.machine
    ceilings = floor.ceilings(machine.torch_device, machine.torch_dtype)
    with machine.autocast():
        layers = floor.layers(job.run.network, job.plan.split, x[:2])
    width = machine.torch_dtype.itemsize
    return {
        "seconds": floor.least_seconds(layers, job.phase.batch_size, width, ceilings),
        "bandwidth": ceilings.bandwidth,
        "rate": ceilings.rate,
    }


def main(
    data: tyro.conf.Positional[Path],
    weights: tyro.conf.Positional[Path],
    recipe: str = "full",
    pairs: int = 5,
    fixed: bool = False,
    compile: Literal["yes", "no"] = "yes",
) -> None:
    """Measure pairs of epochs.

    data: folder of CIFAR-100's parquet shards. fixed: compute on one batch only.
    """
    options = TrainOptions(
        data="cifar100",
        data_dir=data,
        recipe=recipe,
        weights=str(weights),
        out=Path("run"),
        no_test=True,
        compile=compile,
    )
    with ExitStack() as held:
        run = setup(options, ALONE, held)
        job = PhaseJob(run, PHASE)
        training_mode(run.network, job.phase.batch_norm, job.phase.bn_momentum)
        first = train(job, 0)  # compiles, if anything is compiled
        seconds: dict[str, list[float]] = {"whole": [], "compute": []}
        for number in range(1, pairs + 1):
            render = job.feed.epoch(number)
            ready = [render(some) for some in order_of(job, number)[: 1 if fixed else None]]
            for kind in ("whole", "compute") if number % 2 else ("compute", "whole"):
                spent = train(job, number, ready if kind == "compute" else None)
                seconds[kind].append(round(spent, 3))
        least = floor_of_a_step(job, ready[0])
    figures = {
        "images": len(run.train),
        "steps": len(order_of(job, 0)),
        "batch": job.phase.batch_size,
        "compiled": run.state.compiled[PHASE],
        "precision": run.machine.dtype,
        "first": round(first, 3),
        **seconds,
        "fixed": fixed,
        "floor": least,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
