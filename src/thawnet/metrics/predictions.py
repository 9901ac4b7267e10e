"""predictions.csv: a network's prediction for each image that its accuracy was measured on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ..core.errors import RunError
from ..core.files import write_atomic
from ..core.text import from_cell, to_cell
from .accuracy import slices

PREDICTIONS = "predictions.csv"
COLUMNS = ("part", "image", "class", "predicted", "probability", "probability_of_class")


@dataclass(frozen=True)
class Predictions:
    """The rows of predictions.csv, sorted by image, as lists of equal length. Classes are names."""

    part: str
    images: list[str]
    classes: list[str]
    predicted: list[str]

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Which predictions are right, (n,)."""
        pairs = zip(self.predicted, self.classes, strict=True)
        return np.array([predicted == true for predicted, true in pairs])


def write_predictions(
    path: Path,
    part: str,
    images: Sequence[str],
    labels: NDArray[np.int64],
    logits: NDArray[np.float32],
    classes: Sequence[str],
    temperature: float = 1.0,
) -> None:
    """Write a row per image: part, image, class, predicted class, and the probabilities of both.

    labels: class positions, (n,). logits: (n, classes). Probabilities are the softmax of
    the logits divided by the temperature.
    """

    def write(file: IO[bytes]) -> None:
        # A file name need not be UTF-8; other bytes are written as \udc..., as in Python.
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        for some in slices(len(labels)):
            best = logits[some].argmax(axis=1)
            odds = softmax(logits[some].astype(np.float64) / temperature, axis=1)
            for image, label, answer, shares in zip(
                images[some], labels[some], best, odds, strict=True
            ):
                probabilities = [f"{shares[position]:.6g}" for position in (answer, label)]
                names = (part, image, classes[label], classes[answer])
                rows.writerow([*map(to_cell, names), *probabilities])
        text.detach()  # the caller closes the file

    write_atomic(path, write)


def read_predictions(path: Path) -> Predictions:
    """Read a file that `write_predictions` wrote.

    Raises RunError if it is missing or empty, or has other columns, a row that is cut short, or
    more than one part.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [[*map(from_cell, row)] for row in csv.reader(file, strict=True)]
    except FileNotFoundError:
        raise RunError(
            f"'{path.parent}' has no {path.name}; a run by an older thawnet has none: train again"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"'{path}' cannot be read ({error})") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        columns = ", ".join(rows[0]) if rows else "nothing"
        raise RunError(f"'{path}' has other columns: {columns}; expected {', '.join(COLUMNS)}")
    short = next((line for line, row in enumerate(rows, 1) if len(row) != len(COLUMNS)), None)
    if short is not None:
        raise RunError(f"'{path}' is damaged: line {short} has not {len(COLUMNS)} fields")
    body = sorted(rows[1:], key=lambda row: row[1])
    parts = {row[0] for row in body}
    if len(parts) != 1:
        raise RunError(f"'{path}' is damaged: its rows are of {len(parts)} parts, not of one")
    return Predictions(
        part=parts.pop(),
        images=[row[1] for row in body],
        classes=[row[2] for row in body],
        predicted=[row[3] for row in body],
    )
