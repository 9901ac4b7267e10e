"""A finished run as it lies in its folder, read back and checked."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import RunError
from ..core.text import command_line
from ..metrics.predictions import PREDICTIONS, Predictions, read_predictions

# result.json's tables whose values a person may want to set side by side.
TABLES = ("machine", "versions", "weights", "data")


@dataclass(frozen=True)
class Validation:
    """One validation: epochs until then, phase 0 or 1, accuracy on what validates, in [0, 1]."""

    epochs: float
    phase: int
    accuracy: float


@dataclass(frozen=True)
class FinishedRun:
    """What a run left behind.

    part: what its accuracy was measured on, 'test' or 'validation'. content: names the images of
    that part. accuracy, top_5, balanced_accuracy: in [0, 1]. seconds: per stage. facts: recipe,
    machine, versions, weights and data, flat, as text. validated_on: the part behind `history`.
    """

    folder: Path
    part: str
    data: str
    content: str
    accuracy: float
    top_5: float
    balanced_accuracy: float
    seconds: dict[str, float]
    facts: dict[str, str]
    validated_on: str
    history: list[Validation]
    predictions: Predictions


def read_finished(folder: Path) -> FinishedRun:
    """Read a run folder.

    Raises RunError when it is none, is not finished, or one of its files is missing, damaged or
    of another run.
    """
    if not folder.is_dir():
        raise RunError(f"'{folder}': no such folder; give a run folder, as in runs/digits-quick-1")
    if not (folder / "recipe.toml").exists():
        raise RunError(f"'{folder}' is not a run folder: there is no recipe.toml in it")
    if not (folder / "result.json").exists():
        resume = command_line("thawnet", "train", "--resume", folder)
        raise RunError(f"'{folder}' is not finished; go on with it: {resume}")
    result = _parsed(folder / "result.json", json.loads)
    recipe = _parsed(folder / "recipe.toml", tomllib.loads)
    try:
        part = "test" if "test" in result["metrics"] else "validation"
        scores = result["metrics"][part]
        run = FinishedRun(
            folder=folder,
            part=part,
            data=str(result["data"]["name"]),
            content=str(result["data"][f"{part}_fingerprint"]),
            accuracy=_share(scores["accuracy"]),
            top_5=_share(scores["top_5"]),
            balanced_accuracy=_share(scores["balanced_accuracy"]),
            seconds={str(name): float(value) for name, value in result["seconds"].items()},
            facts=_facts(recipe, result),
            validated_on=str(recipe["validate_on"]),
            history=_parsed(folder / "log.jsonl", _history),
            predictions=read_predictions(folder / PREDICTIONS),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise RunError(f"'{folder / 'result.json'}' is damaged ({_reason(error)})") from error
    _require_own(run, scores["images"])
    return run


def _parsed(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"'{path.parent}' is not a whole run folder: {path.name} is missing"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"'{path}' is damaged ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _history(text: str) -> list[Validation]:
    rows = [json.loads(line) for line in text.splitlines()]
    if not rows:
        raise ValueError("it holds no epoch")
    return [
        Validation(float(row["epoch"]), int(row["phase"]), _share(row["val_accuracy"]))
        for row in rows
    ]


def _share(value: Any) -> float:
    share = float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"an accuracy of {value}")
    return share


def _facts(recipe: dict[str, Any], result: dict[str, Any]) -> dict[str, str]:
    facts = {f"recipe {name}": str(value) for name, value in _flat(recipe).items()}
    for table in TABLES:
        facts |= {f"{table} {name}": str(value) for name, value in result[table].items()}
    return facts | {"git commit": str(result["git_commit"])}


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def _require_own(run: FinishedRun, images: Any) -> None:
    """Check that predictions.csv is the one that result.json speaks of."""
    path, found = run.folder / PREDICTIONS, run.predictions
    if found.part != run.part:
        raise RunError(f"'{path}' is of the {found.part} part; its result.json is of {run.part}")
    if len(found.images) != images:
        raise RunError(
            f"'{path}' holds {len(found.images):,} images and its result.json speaks of {images}"
        )
    hits = float(found.hits.mean())
    if abs(hits - run.accuracy) > 1e-6:
        raise RunError(
            f"'{path}' is not the one its result.json speaks of: {100 * hits:.2f} % of its rows "
            f"are right, not {100 * run.accuracy:.2f} %; the file was changed"
        )
