"""The trackers of a run, none of which can stop it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
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
from .tracker import Parameter, Start, Tracker

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
        self._last: Validation | None = None

    def start(self, names: Sequence[str], start: Start, last: Validation | None) -> None:
        """Open trackers, or open them again. last: the last validation before."""
        self._points, self._last = start.points, last
        if not names:
            return
        for name in dict.fromkeys(names):
            self._try(name, partial(self._begin, name, start))

    def _begin(self, name: str, start: Start) -> None:
        module = importlib.import_module(f".{name}", __package__)
        file = start.folder / NAMES
        known: dict[str, str] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        tracker = getattr(module, KNOWN[name])(replace(start, known_as=known.get(name)))
        self._open[name] = tracker
        write_json(file, known | {name: tracker.known_as})
        console.say(f"{name} logs to {tracker.place}")

    def point(self, row: Validation, layer: str) -> None:
        """Tell of a validation. layer: the first one that trains."""
        self._points += 1
        last, self._last = self._last, row
        if last is not None and row.phase > last.phase:
            text = f"after epoch {last.epoch:g}: {layer} and all later layers train"
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

    def end(self, result: Result, classes: int, folder: Path) -> None:
        """Tell of the result, give the files, and close. classes: their number."""
        values = dict(_final(result, classes))
        # The curve may be of fine-tuning, and the network that is kept the head alone.
        text = "\n\n".join((f"kept: {result.kept}", *result.lines))
        self._each(lambda tracker: tracker.note(self._points, "result", text))
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
                with suppress(Exception):  # it has failed already, and that was said
                    tracker.stop()

    def _try(self, name: str, act: Callable[[], object]) -> bool:
        try:
            with console.without_stdout():
                act()
        except Exception as error:  # whatever a tracker's library raises must not stop training
            reason = first_line(error) or type(error).__name__
            console.say(f"--tracker {name} failed ({reason}): the run continues without it")
            return False
        return True


def parameters(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Parameter]]:
    """Yield the values of nested tables, each with its dotted name."""
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from parameters(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, Parameter) else str(value)


def _final(result: Result, classes: int) -> Iterator[tuple[str, float]]:
    for name, scores in result.metrics.items():
        part = result.quoted if name == result.headline else name
        for score in ("accuracy", *(["top_5"] if classes > 5 else []), "balanced_accuracy", "loss"):
            yield f"final {part}/{score}", getattr(scores, score)
        errors = scores.expected_calibration_error
        yield f"final {part}/expected_calibration_error", errors.calibrated
