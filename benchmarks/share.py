"""The share of a training epoch that is forward, backward and step, and the floor of a step.

    python benchmarks/share.py DATA_DIR WEIGHTS.safetensors --recipe full --pairs 5

A real phase 2 on the shards in DATA_DIR, its epochs by turns as a run does them (drawing and
rendering the views included) and over the same batches held ready in memory, or with --fixed over
one batch again and again, which leaves the mixing, the forward and backward passes and the step.
Prints the seconds of every epoch, and what a step takes at least (floor.py).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
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
    """Do one epoch, as PhaseJob does or on batches that are ready; return its seconds."""
    begun = time.perf_counter()
    order = _order(job, number)
    batch = _served(ready) if ready else job.feed.epoch(number)
    epoch = Epoch(
        batch=batch,
        labels=job.labels,
        class_weights=job.class_weights,
        order=order,
        first_step=0,
        steps=1_000_000,  # the learning rate stays at the bottom of its rise
        seed=job.run.recipe.seed,
    )
    train_epoch(job.tail.learner, epoch, lambda _done: None)
    if job.run.machine.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def rendered(job: PhaseJob, number: int, most: int | None = None) -> list[torch.Tensor]:
    """Return the batches of an epoch, or so many of them."""
    batch = job.feed.epoch(number)
    return [batch(positions) for positions in _order(job, number)[:most]]


def _order(job: PhaseJob, number: int) -> list[NDArray[np.int64]]:
    return batches(len(job.run.train), job.phase, [job.run.recipe.seed, number, 0x0BDE])


def _served(ready: list[torch.Tensor]) -> Batch:
    remaining = itertools.cycle(ready)
    return lambda _positions: next(remaining)


def least(job: PhaseJob, x: torch.Tensor) -> dict[str, float]:
    """Return the seconds that a step takes at least, and this device's ceilings; x: a batch."""
    machine, batch = job.run.machine, job.phase.batch_size
    can = floor.ceilings(machine.torch_device, machine.torch_dtype)
    with machine.autocast():
        layers = floor.layers(job.run.network, job.plan.split, x[:2])
    seconds = floor.least_seconds(layers, batch, machine.torch_dtype.itemsize, can)
    return {"seconds": seconds, "bandwidth": can.bandwidth, "rate": can.rate}


def main() -> None:
    """Measure pairs of epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of CIFAR-100's parquet shards")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--recipe", default="full")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--fixed", action="store_true", help="compute on one batch alone")
    parser.add_argument("--compile", choices=("yes", "no"), default="yes")
    chosen = parser.parse_args()
    options = TrainOptions(
        data="cifar100",
        data_dir=chosen.data,
        recipe=chosen.recipe,
        weights=str(chosen.weights),
        out=Path("run"),
        no_test=True,
        compile=chosen.compile,
    )
    with ExitStack() as held:
        run = setup(options, ALONE, held)
        job = PhaseJob(run, PHASE)
        training_mode(run.network, job.phase.batch_norm, job.phase.bn_momentum)
        warm = train(job, 0)  # compiles, if anything is compiled
        whole, compute = [], []
        for number in range(1, chosen.pairs + 1):
            ready = rendered(job, number, 1 if chosen.fixed else None)
            for kind in ("whole", "compute") if number % 2 else ("compute", "whole"):
                if kind == "whole":
                    whole.append(train(job, number))
                else:
                    compute.append(train(job, number, ready))
        at_least = least(job, ready[0])
    found = {
        "images": len(run.train),
        "steps": len(_order(job, 0)),
        "batch": job.phase.batch_size,
        "compiled": run.state.compiled[PHASE],
        "precision": run.machine.dtype,
        "first": round(warm, 3),
        "whole": [round(each, 3) for each in whole],
        "compute": [round(each, 3) for each in compute],
        "fixed": chosen.fixed,
        "floor": at_least,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
