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
LOG = "log.jsonl"
WHOLE = "in all"  # among the seconds of stages: of the whole run, in all its processes


class _Shares:
    """A part of the result whose accuracies are shares."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if ("accuracy" in name or name == "top_5") and not 0 <= value <= 1:
                raise ValueError(f"'{name}' is {value}")


@dataclass(frozen=True)
class Validation(_Shares):
    """One validation of a run, with what training came to until then: a row of log.jsonl."""

    epoch: float
    """Epochs of the run until then; a fraction where an epoch is validated in parts."""
    phase: int
    """0 for the head, 1 for fine-tuning."""
    train_loss: float
    """Cross-entropy in nats, running, without label smoothing."""
    train_accuracy: float
    """Share of hits while training, 0 to 1."""
    val_loss: float
    """Cross-entropy in nats on the images that validate."""
    val_accuracy: float
    """Share of hits on the images that validate, 0 to 1."""
    seconds: float = 0.0
    """Of the epoch until then."""
    images_per_second: float = 0.0
    """Training images a second."""
    elapsed: float = 0.0
    """Seconds of the run's features and training until then."""
    kept: bool = False
    """Whether its phase ended with this network."""


@dataclass(frozen=True)
class CalibrationErrors:
    """Expected calibration errors, 0 to 1, before and after the temperature."""

    uncalibrated: float
    calibrated: float


@dataclass(frozen=True)
class Scores(_Shares):
    """The scores of one part. Shares are 0 to 1."""

    accuracy: float
    interval_95: tuple[float, float]
    """Wilson's interval of the accuracy."""
    top_5: float
    balanced_accuracy: float
    expected_calibration_error: CalibrationErrors
    loss: float
    """Cross-entropy in nats."""
    images: int


@dataclass(frozen=True)
class Majority(_Shares):
    """The most frequent class named for every image."""

    accuracy: float


@dataclass(frozen=True)
class Regression(_Shares):
    """Logistic regression on the features of the untouched pretrained network."""

    accuracy: float
    interval_95: tuple[float, float]
    mcnemar_p: float
    """Exact two-sided p of its answers against the run's."""
    training_images: int
    penalty: float
    """See training/regression.py."""


@dataclass(frozen=True)
class Baselines:
    """The baselines of a run, on the images that its headline was measured on."""

    majority_class: Majority
    logistic_regression_on_frozen_features: Regression


@dataclass(frozen=True)
class PhaseResult:
    """A phase as it ran: its settings on this data, its length, and the epoch it kept."""

    name: str
    trains_from: str
    batch_size: int
    lr: float
    patience: int
    epochs: int
    """At most."""
    epochs_run: int
    kept: Validation
    """The validation whose network it kept, its last one where that is not the result."""
    solved: bool = False
    """Whether it was a head that was solved to its optimum, without steps."""


@dataclass(frozen=True)
class LearningPoint(_Shares):
    """The head alone after learning from a share of the training images, as it validated."""

    images: int
    """Learnt from, in the mean over folds."""
    accuracy: float
    recall: tuple[float, ...]
    """Of each class."""
    gain_95: tuple[float, float]
    """95 % interval of what learning from all adds to its accuracy, on the same images."""


@dataclass(frozen=True)
class DataFacts:
    """The data of a run, by names of its content."""

    name: str
    fingerprint: str
    own_test: bool
    """Whether it came with a test part."""
    content: dict[str, str]
    """Of each part that was measured: the same for the same images under the same classes."""


@dataclass(frozen=True)
class StartingWeights:
    """The pretrained weights of a run."""

    origin: str
    sha256: str


@dataclass(frozen=True)
class OpenedFrom:
    """DATA, --data-dir and how it was read, as it is found from anywhere."""

    data: str
    data_dir: str | None
    reading: dict[str, Any] = field(default_factory=dict)
    """The fields of a data.reading.Reading."""


@dataclass(frozen=True)
class Result:
    """Everything that result.json holds."""

    metrics: dict[str, Scores]
    """Of 'test' and 'validation', those that were measured."""
    temperature: float
    """The logits are divided by it before the softmax."""
    phases: tuple[PhaseResult, ...]
    seconds: dict[str, float]
    """Of each stage, and WHOLE."""
    seed: int
    processes: int
    compiled: tuple[bool, ...]
    """Of each phase."""
    cached: dict[str, bool]
    """Whether the features of each phase and part were cached."""
    different: tuple[str, ...]
    """Why this run is not bit for bit what it would have been, if it was resumed elsewhere."""
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
    """The phase whose network it is: 'fine-tune', or 'head' where that did not pay."""
    folds: int = 0
    """Folds in which the training images validated each other, 0 where others did."""
    validated_on: str = "validation"
    """The name of the images that validated: 'validation', 'held-out' (of folds) or 'test'."""
    learning_curve: tuple[LearningPoint, ...] = ()
    """Of a head that was solved, from a quarter of the images to all."""
    opened_from: OpenedFrom | None = None
    lines: tuple[str, ...] = ()
    """For a person, the accuracy last."""

    @property
    def headline(self) -> str:
        """The part whose accuracy is quoted."""
        return headline(self.metrics)

    @property
    def crossed(self) -> bool:
        """Whether that accuracy is cross-validated: of images that trained, each by its fold."""
        return bool(self.folds) and self.headline == "validation"

    @property
    def crossing(self) -> str:
        """How a cross-validated accuracy came about, a sentence without its full stop."""
        return (
            "every image was tested by a network that learnt from the other folds of "
            f"{self.folds}; the one that is kept learnt from all"
        )

    @property
    def is_regression(self) -> bool:
        """Whether the network is its own baseline: a head that was solved, and not fine-tuned."""
        return self.kept == "head" and self.phases[0].solved

    @property
    def quoted(self) -> str:
        """The name of that accuracy."""
        return "cross-validated" if self.crossed else self.headline

    @property
    def scores(self) -> Scores:
        """The scores of that part."""
        return self.metrics[self.headline]

    @property
    def fitted_on(self) -> int:
        """Images that the temperature was fitted on, 0 where none was."""
        return self.metrics["validation"].images if "validation" in self.metrics else 0


def headline(parts: Container[str]) -> str:
    """Return which of the parts measured is quoted: 'test' where it was read, else 'validation'."""
    return "test" if "test" in parts else "validation"


def write_result(folder: Path, result: Result) -> None:
    """Write result.json into a run folder."""
    write_json(folder / RESULT, plain(result))


def read_result(folder: Path) -> Result:
    """Read a run folder's result.json.

    Raises FileNotFoundError where there is none, RunError where it is damaged.
    """
    result: Result = _parsed(
        folder / RESULT, lambda text: typed(Result, json.loads(text), strict=False)
    )
    return result


def how_opened(bundle: Path) -> OpenedFrom | None:
    """Return what data the run of a bundle was given, if the bundle lies in its run folder."""
    try:
        return read_result(bundle.absolute().parent).opened_from
    except (OSError, RunError):
        return None


def write_log(folder: Path, history: Iterable[Validation]) -> None:
    """Write log.jsonl into a run folder, a line per validation."""
    write_text(folder / LOG, "".join(json.dumps(asdict(row)) + "\n" for row in history))


def read_log(folder: Path) -> list[Validation]:
    """Read a run folder's log.jsonl. Raises as `read_result` does, also for an empty one."""

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
