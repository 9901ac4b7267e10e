"""The record of a finished run: result.json, and log.jsonl with its validations."""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import RunError
from ..core.files import write_json, write_text
from ..core.typed import plain, typed

T = typing.TypeVar("T")

RESULT = "result.json"  # in a run folder; written last, it marks a run as finished
PLOT = "history.png"
LOG = "log.jsonl"
WHOLE = "in all"  # key in Result.seconds: the whole run, over all its processes


class _Shares:
    """Base class that checks that accuracies are shares, 0 to 1."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if ("accuracy" in name or name == "top_5") and not 0 <= value <= 1:
                raise ValueError(f"'{name}' is {value}")


@dataclass(frozen=True)
class Validation(_Shares):
    """One validation of a run, with the state of training at that point: a row of log.jsonl."""

    epoch: float
    """Epochs of the run so far; a fraction if an epoch is validated in parts."""
    phase: int
    """0 for the head, 1 for fine-tuning."""
    train_loss: float
    """Running cross-entropy in nats, without label smoothing."""
    train_accuracy: float
    """Running accuracy while training, 0 to 1."""
    val_loss: float
    """Cross-entropy in nats on the validation images."""
    val_accuracy: float
    """Accuracy on the validation images, 0 to 1."""
    seconds: float = 0.0
    """Seconds of the epoch so far."""
    images_per_second: float = 0.0
    """Training images per second."""
    elapsed: float = 0.0
    """Seconds that the run has spent on features and training so far."""
    kept: bool = False
    """Whether the phase kept this network."""


@dataclass(frozen=True)
class CalibrationErrors:
    """Expected calibration errors, 0 to 1, before and after temperature scaling."""

    uncalibrated: float
    calibrated: float


@dataclass(frozen=True)
class Scores(_Shares):
    """The scores of one part. Shares are 0 to 1."""

    accuracy: float
    interval_95: tuple[float, float]
    """Wilson's 95 % interval of the accuracy."""
    top_5: float
    balanced_accuracy: float
    expected_calibration_error: CalibrationErrors
    loss: float
    """Cross-entropy in nats."""
    images: int


@dataclass(frozen=True)
class Majority(_Shares):
    """Baseline that predicts the most frequent class for every image."""

    accuracy: float


@dataclass(frozen=True)
class Regression(_Shares):
    """Logistic regression on the features of the untouched pretrained network."""

    accuracy: float
    interval_95: tuple[float, float]
    mcnemar_p: float
    """Two-sided p of McNemar's exact test against the run."""
    training_images: int
    penalty: float
    """See training/regression.py."""


@dataclass(frozen=True)
class Baselines:
    """The baselines of a run, on the images of its headline accuracy."""

    majority_class: Majority
    logistic_regression_on_frozen_features: Regression


@dataclass(frozen=True)
class PhaseResult:
    """A completed phase: its settings on this data, its length, and the epoch it kept."""

    name: str
    trains_from: str
    batch_size: int
    lr: float
    patience: int
    epochs: int
    """Maximum number of epochs."""
    epochs_run: int
    kept: Validation
    """The validation of the network that it kept; its last validation if it kept none."""
    solved: bool = False
    """Whether its head was solved to the optimum, without optimiser steps."""


@dataclass(frozen=True)
class LearningPoint(_Shares):
    """Validation of the head alone, trained on a share of the training images."""

    images: int
    """Number of images trained on, averaged over folds."""
    accuracy: float
    recall: tuple[float, ...]
    """Of each class."""
    gain_95: tuple[float, float]
    """95 % interval of the gain in accuracy from training on all, on the same validation images."""


@dataclass(frozen=True)
class DataFacts:
    """The data of a run, with fingerprints of its content."""

    name: str
    fingerprint: str
    own_test: bool
    """Whether it came with a test part."""
    content: dict[str, str]
    """Fingerprint of each measured part: the same for the same images under the same classes."""


@dataclass(frozen=True)
class StartingWeights:
    """The pretrained weights of a run."""

    origin: str
    sha256: str
    learned_from: int = 0
    """Number of images that earlier runs trained them on or selected them by, as far as known."""


@dataclass(frozen=True)
class OpenedFrom:
    """DATA, --data-dir and how to read them, with absolute paths."""

    data: str
    data_dir: str | None
    reading: dict[str, Any] = field(default_factory=dict)
    """The fields of a data.reading.Reading."""


@dataclass(frozen=True)
class Result:
    """Everything that result.json holds."""

    metrics: dict[str, Scores]
    """Scores of 'test' and 'validation', where measured."""
    temperature: float
    """Divides the logits before the softmax."""
    phases: tuple[PhaseResult, ...]
    seconds: dict[str, float]
    """Of each stage, and of WHOLE."""
    seed: int
    processes: int
    compiled: tuple[bool, ...]
    """Whether each phase was compiled."""
    cached: dict[str, bool]
    """Whether the features of each phase and part were cached."""
    different: tuple[str, ...]
    """Why this run may differ in bits from an uninterrupted one, if it was resumed elsewhere."""
    command: str
    finished: str
    """UTC, ISO 8601."""
    git_commit: str | None
    versions: dict[str, str | None]
    machine: dict[str, Any]
    data: DataFacts
    weights: StartingWeights
    baselines: Baselines | None = None
    standing: str = ""
    """The comparison with logistic regression, a sentence without its full stop."""
    kept: str = "fine-tune"
    """The phase whose network was kept: 'fine-tune', or 'head' if fine-tuning did not help."""
    folds: int = 0
    """Number of cross-validation folds of the training images, 0 if other images validated."""
    validated_on: str = "validation"
    """The validation images: 'validation', 'held-out' (of folds) or 'test'."""
    learning_curve: tuple[LearningPoint, ...] = ()
    """Of a solved head, from a quarter of the images to all."""
    opened_from: OpenedFrom | None = None
    lines: tuple[str, ...] = ()
    """A summary for people, the accuracy last."""

    @property
    def headline(self) -> str:
        """The part whose accuracy is quoted."""
        return headline(self.metrics)

    @property
    def crossed(self) -> bool:
        """Whether the quoted accuracy is cross-validated over folds of the training images."""
        return bool(self.folds) and self.headline == "validation"

    @property
    def crossing(self) -> str:
        """How a cross-validated accuracy was measured, a sentence without its full stop."""
        return (
            "every image was tested by a network that learned from the other folds of "
            f"{self.folds}; the one that is kept learned from all"
        )

    @property
    def is_regression(self) -> bool:
        """Whether the network is its own baseline: a solved head without fine-tuning."""
        return self.kept == "head" and self.phases[0].solved

    @property
    def quoted(self) -> str:
        """The name of the quoted accuracy."""
        return "cross-validated" if self.crossed else self.headline

    @property
    def scores(self) -> Scores:
        """The scores of the part whose accuracy is quoted."""
        return self.metrics[self.headline]

    @property
    def fitted_on(self) -> int:
        """Number of images that the temperature was fitted on, 0 if none was fitted."""
        return self.metrics["validation"].images if "validation" in self.metrics else 0


def headline(parts: Container[str]) -> str:
    """Return the part whose accuracy is quoted: 'test' if it was measured, else 'validation'."""
    return "test" if "test" in parts else "validation"


def write_result(folder: Path, result: Result) -> None:
    """Write result.json into a run folder."""
    write_json(folder / RESULT, plain(result))


def read_result(folder: Path) -> Result:
    """Read a run folder's result.json.

    Raises FileNotFoundError if there is none, RunError if it is damaged.
    """
    result: Result = _parsed(
        folder / RESULT, lambda text: typed(Result, json.loads(text), strict=False)
    )
    return result


def how_opened(bundle: Path) -> OpenedFrom | None:
    """Return the data of a bundle's run, or None if the bundle is not in its run folder."""
    try:
        return read_result(bundle.absolute().parent).opened_from
    except (OSError, RunError):
        return None


def write_log(folder: Path, history: Iterable[Validation]) -> None:
    """Write log.jsonl into a run folder, one line per validation."""
    write_text(folder / LOG, "".join(json.dumps(asdict(row)) + "\n" for row in history))


def read_log(folder: Path) -> list[Validation]:
    """Read a run folder's log.jsonl. Raises as `read_result` does; an empty log is damaged."""

    def rows(text: str) -> list[Validation]:
        history = [typed(Validation, json.loads(line), strict=False) for line in text.splitlines()]
        if not history:
            raise ValueError("it holds no epoch")
        return history

    return _parsed(folder / LOG, rows)


def _parsed(path: Path, parse: Callable[[str], T]) -> T:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"'{path}' is damaged ({error})") from error
