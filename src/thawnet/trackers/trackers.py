"""The trackers of a run, none of which can stop it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..core import console
from ..core.errors import first_line
from ..core.files import write_json
from ..core.packages import require_installed
from ..core.text import command_line
from ..metrics.result import Result, Validation
from .tracker import Start, Tracker

# By the name that --tracker takes: the package, which is the module here too, and the class.
KNOWN = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "WandB"}
NAMES = "trackers.json"  # in the run folder: what each tracker called the run


def require_trackers(names: Sequence[str]) -> None:
    """Raise UsageError with the pip command if a tracker's package is missing."""
    for name in names:
        require_installed(f"--tracker {name}", (name,), command_line("pip", "install", name))


class Trackers:
    """The trackers of a run. One that fails is left out from then on, and that is said once."""

    def __init__(self) -> None:
        self._open: dict[str, Tracker] = {}
        self._points = 0
        self._phase = 0

    def start(self, names: Sequence[str], start: Start, phase: int) -> None:
        """Open trackers, or open them again. phase: of the last validation, 0 before any."""
        self._points, self._phase = start.points, phase
        if not names:
            return
        file = start.folder / NAMES
        known: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        for name in dict.fromkeys(names):
            self._try(name, partial(self._begin, name, replace(start, known_as=known.get(name))))
        write_json(file, known | {name: run.known_as for name, run in self._open.items()})

    def _begin(self, name: str, start: Start) -> None:
        module = importlib.import_module(f".{name}", __package__)
        self._open[name] = getattr(module, KNOWN[name])(start)

    def point(self, row: Validation, layer: str) -> None:
        """Tell of a validation. layer: the first one that trains."""
        self._points += 1
        if row.phase > self._phase:
            self._phase = row.phase
            text = f"from epoch {row.epoch:g} on, {layer} and all later layers train"
            self._each(lambda tracker: tracker.note(self._points, "thawed", text))
        values = {
            "epoch": row.epoch,
            "phase": row.phase + 1,
            "train/loss": row.train_loss,
            "train/accuracy": row.train_accuracy,
            "validation/loss": row.val_loss,
            "validation/accuracy": row.val_accuracy,
            "images per second": row.images_per_second,
        }
        self._each(lambda tracker: tracker.point(self._points, values))

    def end(self, result: Result, folder: Path) -> None:
        """Tell of the result, give the files, and close."""
        values = dict(_final(result))
        self._each(lambda tracker: tracker.end(values, folder))
        self._open.clear()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_stopped: object) -> None:
        """Close what is still open: the run was stopped."""
        self._each(lambda tracker: tracker.stop())
        self._open.clear()

    def _each(self, tell: Callable[[Tracker], object]) -> None:
        for name, tracker in list(self._open.items()):
            if not self._try(name, partial(tell, tracker)):
                del self._open[name]

    def _try(self, name: str, act: Callable[[], object]) -> bool:
        try:
            with console.without_stdout():
                act()
        except Exception as error:  # whatever a tracker's library raises must not stop training
            reason = first_line(error) or type(error).__name__
            console.say(f"--tracker {name} failed ({reason}): the run continues without it")
            return False
        return True


def parameters(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of a recipe's tables, each with its dotted name."""
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from parameters(value, f"{prefix}{name}.")
        else:
            yield prefix + name, str(value)


def _final(result: Result) -> Iterator[tuple[str, float]]:
    for part, scores in result.metrics.items():
        for name in ("accuracy", "top_5", "balanced_accuracy", "loss"):
            yield f"final {part}/{name}", getattr(scores, name)
        errors = scores.expected_calibration_error
        yield f"final {part}/expected_calibration_error", errors.calibrated
