"""A made-up result of a run, for tests of what reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from thawnet.metrics.result import (
    CalibrationErrors,
    DataFacts,
    PhaseResult,
    Result,
    Scores,
    StartingWeights,
    Validation,
)


def validation(epoch: float, phase: int, accuracy: float, kept: bool = False) -> Validation:
    """Return a validation whose four figures all differ."""
    return Validation(
        epoch=epoch,
        phase=phase,
        train_loss=2 - accuracy,
        train_accuracy=accuracy + 0.1,
        val_loss=2.5 - accuracy,
        val_accuracy=accuracy,
        kept=kept,
    )


def scores(accuracy: float, images: int) -> Scores:
    """Return scores of which the accuracies are one."""
    errors = CalibrationErrors(0.1, 0.05)
    return Scores(accuracy, (0.0, 1.0), 1.0, accuracy, errors, 1.0, images)


def result_of(part: str, accuracy: float, images: int, **changes: Any) -> Result:
    """Return the result of a run that was measured on one part."""
    kept = validation(3, 0, 0.5, kept=True)
    found = Result(
        metrics={part: scores(accuracy, images)},
        temperature=1.5,
        phases=tuple(
            PhaseResult(name, name, 16, 0.1, 0, 3, 3, kept) for name in ("head", "fine-tune")
        ),
        seconds={"data": 1.5, "head": 2.0, "fine-tune": 30.0, "in all": 40.0},
        seed=0,
        processes=1,
        compiled=(False, False),
        cached={},
        different=(),
        command="thawnet train insects",
        finished="2026-01-01T00:00:00+00:00",
        git_commit=None,
        versions={"torch": "2.15.0"},
        machine={"threads": 2},
        data=DataFacts("insects", "f", own_test=True, content={part: "same"}),
        weights=StartingWeights("timm", "00ff"),
    )
    return replace(found, **changes)
