"""The state of a run as one object, saved whole after every epoch, read back without pickle."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError
from ..files import write_atomic

VERSION = 2
FILE = Path("checkpoint") / "state.pt"


@dataclass
class RunState:
    """All that changes while a run goes on.

    options: the command's options. recipe: as tables. machine: the run-time decisions.
    phase, epoch: the next epoch to do, both counted from 0. history: a line per finished epoch.
    seconds: per stage. network: weights after the last epoch. averaged, optimizer: of the phase
    under way. best: its best epoch so far, if it stops early: accuracy, loss, epoch, network.
    """

    options: dict[str, Any]
    recipe: dict[str, Any]
    machine: dict[str, Any]
    phase: int = 0
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    network: dict[str, torch.Tensor] | None = None
    averaged: dict[str, torch.Tensor] | None = None
    optimizer: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    finished: bool = False


@contextmanager
def timed(state: RunState, stage: str) -> Iterator[None]:
    """Add the wall time of a block to a stage of the run."""
    start = time.perf_counter()
    try:
        yield
    finally:
        state.seconds[stage] = state.seconds.get(stage, 0.0) + time.perf_counter() - start


def save(state: RunState, run: Path) -> None:
    """Write the state so that a reader finds this one or the one before, never a part."""
    content = {name: getattr(state, name) for name in state.__dataclass_fields__}
    write_atomic(run / FILE, lambda file: torch.save({"version": VERSION, **content}, file))


def load(run: Path) -> RunState:
    """Read the state of a run. Raises RunError when there is none or it is not of this version."""
    path = run / FILE
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version = content.pop("version")
    except FileNotFoundError:
        raise RunError(
            f"--resume '{run}': no checkpoint in it; "
            "a run can be resumed once its first epoch is done"
        ) from None
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, AttributeError) as error:
        raise RunError(f"'{path}' is not a readable checkpoint ({error})") from error
    if version != VERSION:
        raise RunError(f"'{path}' is of version {version}; this thawnet reads version {VERSION}")
    return RunState(**content)


def newest_unfinished(runs: Path) -> Path:
    """Return the newest run under a folder whose checkpoint says it is not finished."""
    files = sorted(runs.glob(f"*/{FILE.as_posix()}"), key=lambda file: file.stat().st_mtime)
    for file in reversed(files):
        run = file.parent.parent
        if not (run / "result.json").exists():
            return run
    raise RunError(f"--resume: no unfinished run under '{runs}/'; name one with --resume RUN")


def plain(options: Any) -> dict[str, Any]:
    """Return a dataclass as values that a checkpoint may hold: paths become text."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
    }
