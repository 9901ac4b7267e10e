"""A run: setup, learn a head on the frozen network, thaw and fine-tune, finish."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch

from ..core import console
from ..core.errors import RunError, first_line, is_stop
from ..core.text import command_line
from ..data.items import Source
from ..recipe import TrainOptions
from . import checkpoint
from .call import resumed_folder
from .checkpoint import IN_MEMORY, Keeper
from .context import Material
from .finish import finish
from .phase import PhaseJob
from .ranks import join, leave, losses_told
from .run_folder import Outcome, finished
from .setup import setup
from .turns import own_turn


@own_turn()
def train(
    options: TrainOptions,
    source: Source | None = None,
    report: Callable[[Material], None] | None = None,
) -> Outcome:
    """Do a whole run, or the rest of one, and return what came out.

    source: data that is there already, whatever `options.data` says; this run cannot be resumed.
    report: called in the end, by one process, with what a report is made of, unless the run was
    asked for none or `source` was given.
    Under torchrun every process does its share, and the first writes the run folder. Called in
    several threads of a process, it does one run after another.
    Raises ThawnetError with one sentence for a person; what was done until then lies in the run
    folder.
    """
    started = time.perf_counter()
    world = join()
    if source is not None:
        options = dataclasses.replace(options, data=IN_MEMORY)
    if options.resume is not None:
        before = world.lead(lambda: finished(resumed_folder(options)))
        if before is not None:
            console.say(f"{before.folder} is finished; nothing is left to do")
            leave(world)
            return before
    with ExitStack() as held:
        with losses_told(world):
            run = setup(options, world, held, source)
        keeper = Keeper(run.state, run.folder if world.leads else None, started)
        try:
            with losses_told(world, run.folder), checkpoint.resumable(run.state, run.folder):
                keeper.save()
                for number in range(run.state.phase, 2):
                    PhaseJob(run, number).do(keeper)
                outcome = finish(run, keeper, report)
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"the GPU's memory is full ({first_line(error)}); close what else uses it and "
                f"go on with {command_line('--resume', run.folder)}, or begin again with a "
                "smaller --size"
            ) from error
        except (KeyboardInterrupt, RuntimeError, ImportError) as error:
            if not is_stop(error):
                raise
            raise checkpoint.interrupted(run.state, run.folder) from error
    leave(world)
    return outcome
