"""What a tracker is told of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..metrics.result import PLOT

Values = Mapping[str, float]
Parameter = bool | int | float | str
FILES = ("report.html", PLOT)  # of a run folder, for trackers that keep files


@dataclass(frozen=True)
class Start:
    """A run that begins, or continues."""

    folder: Path
    """The run folder."""
    project: str
    """The name of the data."""
    parameters: Mapping[str, Parameter]
    """Everything that is decided before training, by dotted name."""
    points: int
    """Validations that the tracker has seen already."""
    known_as: str | None
    """What the tracker called the run when it began, if it continues."""


class Tracker(Protocol):
    """A run in a tracker, opened with a Start. Any method may raise anything."""

    known_as: str
    """The tracker's own name for the run."""
    place: str
    """Where its user finds the run: a folder or an address."""

    def point(self, step: int, values: Values) -> None:
        """Keep the values of a validation. step: its number, from 1."""

    def note(self, step: int, title: str, text: str) -> None:
        """Keep a remark on the run at that step."""

    def end(self, values: Values, folder: Path) -> None:
        """Keep the final values and the files of a finished run, and close it."""

    def stop(self) -> None:
        """Close a run that was stopped; it may continue later."""
