"""A finished run, read back from its folder and checked."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import RunError
from ..core.text import unfinished
from ..metrics.predictions import PREDICTIONS, Predictions, read_predictions
from ..metrics.result import Result, Validation, read_log, read_result


@dataclass(frozen=True)
class FinishedRun:
    """The contents of a finished run's folder."""

    folder: Path
    recipe: dict[str, Any]
    result: Result
    history: list[Validation]
    predictions: Predictions

    @property
    def part(self) -> str:
        """The part that its accuracy was measured on: 'test' or 'validation'."""
        return self.result.headline

    @property
    def content(self) -> str:
        """Fingerprint of that part's images and classes."""
        return self.result.data.content.get(self.part, "")

    @property
    def facts(self) -> dict[str, str]:
        """Recipe, machine, versions, weights, data and commit, as flat text values."""
        result = self.result
        tables = {
            "recipe": self.recipe,
            "machine": result.machine,
            "versions": result.versions,
            "weights": asdict(result.weights),
            "data": asdict(result.data),
        }
        facts = {
            f"{table} {name}": str(value)
            for table, values in tables.items()
            for name, value in _flat(values).items()
        }
        return facts | {"git commit": str(result.git_commit)}


def read_finished(folder: Path) -> FinishedRun:
    """Read a run folder.

    Raises RunError if it is not a run folder, the run is not finished, or a file is missing,
    damaged or from another run.
    """
    if not folder.is_dir():
        raise RunError(f"'{folder}': no such folder; give a run folder, as in runs/digits-quick-1")
    if not (folder / "recipe.toml").exists():
        raise RunError(f"'{folder}' is not a run folder: there is no recipe.toml in it")
    try:
        result = read_result(folder)
    except FileNotFoundError:
        raise RunError(unfinished(folder)) from None
    try:
        run = FinishedRun(
            folder=folder,
            recipe=_recipe(folder / "recipe.toml"),
            result=result,
            history=read_log(folder),
            predictions=read_predictions(folder / PREDICTIONS),
        )
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise RunError(f"'{folder}' is not a whole run folder: {name} is missing") from None
    _require_own(run)
    return run


def _recipe(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"'{path}' is damaged ({error})") from error


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables into one with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def _require_own(run: FinishedRun) -> None:
    """Check that predictions.csv belongs to result.json."""
    path, rows, scores = run.folder / PREDICTIONS, run.predictions, run.result.scores
    if rows.part != run.part:
        raise RunError(f"'{path}' is of the {rows.part} part; its result.json is of {run.part}")
    if len(rows.images) != scores.images:
        raise RunError(
            f"'{path}' holds {len(rows.images):,} images and its result.json speaks of "
            f"{scores.images}"
        )
    hits = float(rows.hits.mean())
    if abs(hits - scores.accuracy) > 1e-6:
        raise RunError(
            f"'{path}' is not the one its result.json speaks of: {100 * hits:.2f} % of its rows "
            f"are right, not {100 * scores.accuracy:.2f} %; the file was changed"
        )
