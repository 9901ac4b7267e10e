"""The state of a run as one object, saved whole and often, and loaded without running code."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import console
from ..core.cache import Pace
from ..core.errors import (
    DiskFullError,
    InterruptedRunError,
    RunError,
    first_line,
    is_stop,
)
from ..core.files import stops_caught, write_atomic
from ..core.text import counted, resume_command
from ..core.typed import plain
from ..metrics.result import WHOLE, Validation
from ..recipe import (
    Recipe,
    TrainOptions,
    parse_recipe,
    to_table,
    to_toml,
)
from .machine import Machine
from .run_folder import STATE, no_run

VERSION = 6
IN_MEMORY = "(in memory)"  # stands for DATA in a run whose images were in memory


@dataclass(frozen=True)
class Head:
    """The network of phase 1, the head alone on the frozen layers."""

    logits: torch.Tensor
    """Validation logits, (n, classes)."""
    tensors: dict[str, torch.Tensor] | None = None
    """Copies of the tensors that phase 2 changes, by name; None until it begins."""
    solved: dict[str, Any] | None = None
    """Weight, bias and penalty of a solved head, see regression.Fitted."""
    folds: list[dict[str, Any]] = field(default_factory=list)
    """The same for each fold, learned from the images of all others."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """The points of its learning curve, see metrics.result.LearningPoint."""


@dataclass
class RunState:
    """Everything that changes during a run, and everything decided at its start."""

    options: TrainOptions
    recipe: Recipe
    machine: Machine
    versions: dict[str, str | None]
    """Versions of the packages that affect its numbers."""
    ranks: int
    """Number of processes."""
    data: str = ""
    """Fingerprint of the data, without the test part."""
    weights: str = ""
    """Fingerprint of the pretrained weights."""
    command: str = ""
    """The command line as a person typed it."""
    own_test: bool = False
    """Whether the data came with a test part."""
    tested: str = ""
    """Fingerprint of the test images whose logits are in `logits`."""
    compiled: list[bool] = field(default_factory=list)
    """Whether each phase is compiled."""
    cached: dict[str, bool] = field(default_factory=dict)
    """Whether the features of each phase and part are cached."""
    batches: dict[int, int] = field(default_factory=dict)
    """Batch sizes of phases whose own did not fit the device's memory."""
    phase: int = 0
    epoch: int = 0
    """The epoch within the phase, from 0."""
    round: int = 0
    """The round within the epoch, from 0; see PhasePlan.rounds."""
    step: int = 0
    """The next batch of the epoch; after the last of a round, the validation comes next."""
    totals: list[float] | None = None
    """Running sums of the epoch under way; see loop.train_epoch."""
    spent: float = 0.0
    """Seconds of the epoch under way."""
    logits: dict[str, torch.Tensor] = field(default_factory=dict)
    """Logits that a validation or test has computed so far, by part."""
    history: list[Validation] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage, in seconds."""
    network: dict[str, torch.Tensor] | None = None
    averaged: dict[str, torch.Tensor] | None = None
    optimizer: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    """Best validation of a phase with patience: accuracy, loss, epoch, row, logits, network."""
    head: Head | None = None
    kept: str = "fine-tune"
    """The phase whose network is the result."""
    folds: list[list[dict[str, Any]]] = field(default_factory=list)
    """With few images: the marks of each fine-tuned fold, see few.Mark."""
    different: list[str] = field(default_factory=list)
    """What differed when the run was resumed, so that its bits may differ too."""


@contextmanager
def timed(state: RunState, stage: str) -> Iterator[None]:
    """Add the wall time of a block to a stage of the run."""
    start = time.perf_counter()
    try:
        yield
    finally:
        state.seconds[stage] = state.seconds.get(stage, 0.0) + time.perf_counter() - start


class Keeper:
    """Saves the state of a run every few seconds, and before it stops.

    folder: of the run; None for a rank that does not write. started: when this process started the
    run, by time.perf_counter; now by default.
    """

    def __init__(self, state: RunState, folder: Path | None, started: float | None = None) -> None:
        self.state = state
        self.folder = folder
        self._started = time.perf_counter() if started is None else started
        self._before = state.seconds.get(WHOLE, 0.0)
        self.signal = 0  # the one that requested a stop, or 0
        self._pace = Pace()
        self._at_once = False

    @property
    def due(self) -> bool:
        """Whether the state should be brought up to date and saved now."""
        return self.folder is not None and (self.signal != 0 or self._pace.due())

    def clock(self) -> None:
        """Update the wall time of the whole run, including the processes before a resume."""
        self.state.seconds[WHOLE] = self._before + time.perf_counter() - self._started

    def save(self) -> None:
        """Save the state, and stop if a stop was requested."""
        self.clock()
        if self.folder is not None:
            save(self.state, self.folder)
        self._pace.restart()
        if self.signal:
            raise KeyboardInterrupt

    def logits(
        self, part: str, update: Callable[[], None]
    ) -> tuple[NDArray[np.float32] | None, Callable[[list[NDArray[np.float32]]], None]]:
        """Return a part's logits so far, and a callback that saves more, both for `evaluate`.

        update: updates the rest of the state.
        """

        def between(chunks: list[NDArray[np.float32]]) -> None:
            if self.due:
                self.state.logits[part] = torch.from_numpy(np.concatenate(chunks))
                update()
                self.save()

        logits = self.state.logits.get(part)
        return (None if logits is None else logits.numpy()), between

    def stopping_between_steps(self) -> AbstractContextManager[None]:
        """Defer Ctrl-C and SIGTERM to the next `save`; a second one stops at once."""

        def ask(number: int) -> None:
            if self.signal or self._at_once:
                raise KeyboardInterrupt
            self.signal = number
            console.say("stopping after this step; interrupt again to stop at once")

        return stops_caught(ask)

    @contextmanager
    def stopping_at_once(self) -> Iterator[None]:
        """Let a stop act at once, during long work between steps that saves its own progress."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False


def save(state: RunState, run: Path) -> None:
    """Write the state atomically: a reader finds this one or the one before, never a part."""
    content = vars(state) | {
        "options": plain(state.options),
        "recipe": to_table(state.recipe),
        "machine": asdict(state.machine),
        "history": [asdict(row) for row in state.history],
        "head": state.head and vars(state.head),
    }
    write_atomic(run / STATE, lambda file: torch.save({"version": VERSION, **content}, file))


def load(run: Path) -> RunState:
    """Read the state of a run. Raises RunError when there is none or it is not of this version."""
    path = run / STATE
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version = content.pop("version")
    except FileNotFoundError:
        raise RunError(no_run(run)) from None
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, AttributeError) as error:
        raise RunError(
            f"'{path}' is not a readable checkpoint ({error}); start a new run"
        ) from error
    if version != VERSION:
        raise RunError(
            f"'{path}' is of version {version}; this thawnet reads {VERSION}; use the other"
        )
    content["options"] = TrainOptions(**content["options"])
    content["recipe"] = parse_recipe(to_toml(content["recipe"]), str(run))
    content["machine"] = Machine(**content["machine"])
    content["head"] = content["head"] and Head(**content["head"])
    content["history"] = [Validation(**row) for row in content["history"]]
    return RunState(**content)


def _interrupted(state: RunState, run: Path) -> InterruptedRunError:
    """Return the error for a stop: how much is kept, and how to continue."""
    epochs = int(state.history[-1].epoch) if state.history else 0
    steps = f" and {counted(state.step, 'step')}" if state.step else ""
    done = counted(epochs, "epoch") + steps
    verb = "is" if epochs == 1 and not steps else "are"
    if state.folds:
        done, verb = f"the head and {counted(len(state.folds), 'fold')}", "are"
    if state.options.data == IN_MEMORY:
        return InterruptedRunError(
            f"stopped after {done}; its images were in memory, so it cannot be resumed"
        )
    return InterruptedRunError(f"stopped; {done} {verb} kept: {resume_command(run)}")


@contextmanager
def resumable(state: RunState, run: Path) -> Iterator[None]:
    """Add how to resume, or what else to do, to the error of a stop, full disk or full GPU."""
    try:
        yield
    except DiskFullError as error:
        if state.options.data == IN_MEMORY:
            raise
        raise DiskFullError(f"{error}: {resume_command(run)}") from error
    except torch.OutOfMemoryError as error:
        again = "" if state.options.data == IN_MEMORY else f", or continue: {resume_command(run)}"
        raise RunError(
            f"the GPU's memory is full ({first_line(error)}); close what else uses it and begin "
            f"again with a smaller --size{again}"
        ) from error
    except NotImplementedError as error:
        if state.machine.device != "mps":
            raise
        raise RunError(
            f"--device mps: torch lacks an operator for Apple's GPUs ({first_line(error)}); "
            "use --device cpu, or set PYTORCH_ENABLE_MPS_FALLBACK=1, and torch computes such "
            "operators on the processor and names them"
        ) from error
    except (KeyboardInterrupt, RuntimeError, ImportError) as error:
        if not is_stop(error):
            raise
        raise _interrupted(state, run) from error
