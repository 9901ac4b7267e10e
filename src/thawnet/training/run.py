"""A run: setup, learn a head on the frozen network, thaw and fine-tune, finish."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from ..core import console
from ..data.items import Source
from ..recipe import TrainOptions
from .checkpoint import IN_MEMORY, Keeper, resumable
from .context import Material, Run
from .few import fine_tune_folds, held_out
from .finish import finish
from .head import solve_head
from .phase import PhaseJob
from .plan import NAMES
from .ranks import joined, losses_told
from .run_folder import Outcome, finished, resumed_folder
from .setup import setup


def train(
    options: TrainOptions,
    source: Source | None = None,
    report: Callable[[Material], None] | None = None,
) -> Outcome:
    """Do a whole run, or the rest of one, and return its outcome.

    source: data that is open already, used instead of `options.data`; such a run cannot be resumed.
    report: called at the end, by one process, unless `options.no_report` is set.
    Under torchrun every process does its share, and the first writes the run folder. Calls in
    several threads of a process run one after another.
    Raises ThawnetError with a message of one sentence; the work done until then is in the run
    folder.
    """
    started = time.perf_counter()
    if source is not None:
        options = dataclasses.replace(options, data=IN_MEMORY)
    with own_turn(), joined() as world, ExitStack() as held:
        if options.resume is not None:
            before = world.lead(lambda: finished(resumed_folder(options)))
            if before is not None:
                console.say(f"{before.folder} is finished; nothing is left to do")
                return before
        with losses_told(world):
            run = setup(options, world, held, source)
        keeper = Keeper(run.state, run.folder if world.leads else None, started)
        with resumable(run.state, run.folder), losses_told(world, run.folder):
            keeper.save()
            for number in range(run.state.phase, len(run.plan)):
                do_phase(run, number, keeper)
            if len(run.plan) == 1:
                _keep_head(run)
            if run.folds is not None and run.state.kept == NAMES[1]:
                run.val = run.train.subset(np.sort(held_out(run)))
            outcome = finish(run, keeper, report)
            run.trackers.end(outcome.result, len(run.source.classes), outcome.folder)
            return outcome


def _keep_head(run: Run) -> None:
    """Make the head alone the result of a run without fine-tuning."""
    run.state.kept = NAMES[0]
    if run.folds is not None and run.state.head is not None:
        run.state.logits["validation"] = run.state.head.logits


def do_phase(run: Run, number: int, keeper: Keeper) -> None:
    """Do the rest of a phase: solve the head, fine-tune in folds, or train in steps."""
    if run.plan[number].solved:
        solve_head(run, keeper)
    elif number and run.folds is not None:
        fine_tune_folds(run, keeper)
    else:
        PhaseJob(run, number).do(keeper)


_turn = threading.Lock()


@contextmanager
def own_turn() -> Iterator[None]:
    """Let one thread of this process train at a time.

    Tracing, exporting and compiling a network patch torch for the whole process, and training takes
    all cores, so that running side by side would not be faster. Settings that training changes for
    the whole process are restored.
    """
    if not _turn.acquire(blocking=False):
        console.say("another thread of this process is training; waiting for it")
        _turn.acquire()
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    random = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(random)
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_num_threads(threads)
        _turn.release()
