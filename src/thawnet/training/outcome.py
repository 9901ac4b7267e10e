"""The run folder: what is written when a run starts, after each epoch, and in the end."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from ..bundle.card import model_card
from ..bundle.format import RUN_BUNDLE, describe_bundle, short_hashes, write_bundle
from ..bundle.meaning import Meaning
from ..data.sources import NAMED
from ..data.store import ImageStore
from ..errors import RunError, first_line
from ..files import clear_disk_errors, fingerprint, write_json, write_text
from ..recipe import TrainOptions
from ..report.calibration import calibration_error, fit_temperature
from ..report.metrics import (
    balanced_accuracy,
    calibrated,
    interval,
    quote,
    standing,
    top_k,
)
from ..report.predictions import PREDICTIONS, write_predictions
from ..text import command_line
from .baseline import REGRESSION
from .checkpoint import RunState
from .exporting import Agreement, export
from .familiarity import fit_familiarity
from .loop import Metrics
from .machine import describe, versions
from .plan import NAMES, fit, scaled

if TYPE_CHECKING:
    from .setup import Run

# Metrics, logits (n, classes) and images of each part that was measured.
Parts = dict[str, tuple[Metrics, NDArray[np.float32], ImageStore]]

RESULT = "result.json"
LOG = "log.jsonl"


@dataclass(frozen=True)
class Outcome:
    """What came out of a run: lines for a person, the accuracy last; `result` is result.json."""

    folder: Path
    lines: tuple[str, ...]
    result: dict[str, Any]

    @property
    def line(self) -> str:
        """The accuracy as it is quoted."""
        return self.lines[-1]


@dataclass(frozen=True)
class Saved:
    """A network that lies in its bundle.

    agreement: of its model.onnx with it, None where it has none.
    """

    meaning: Meaning
    agreement: Agreement | None


def require_free(chosen: Path | None) -> None:
    """Raise RunError when the chosen run folder already holds something."""
    if chosen is not None and chosen.is_dir() and any(chosen.iterdir()):
        raise RunError(
            f"--out '{chosen}': the folder already holds a run or other files; "
            f"choose a new one, or go on with that run: {command_line('--resume', chosen)}"
        )


def new_run_folder(chosen: Path | None, data: str, recipe: str) -> Path:
    """Make the run folder: the one chosen, or the next free runs/<data>-<recipe>-<n>.

    Raises RunError when the chosen folder is not empty or can not be made.
    """
    require_free(chosen)
    if chosen is not None:
        with clear_disk_errors(chosen):
            chosen.mkdir(parents=True, exist_ok=True)
        return chosen
    number = 1
    while True:
        folder = Path("runs") / f"{data}-{recipe}-{number}"
        with clear_disk_errors(folder):
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                number += 1


def remove_run_folder(folder: Path, chosen: Path | None) -> None:
    """Remove the folder of a run that could not begin, and the `runs` it alone was in."""
    shutil.rmtree(folder, ignore_errors=True)
    if chosen is None:
        with contextlib.suppress(OSError):  # others are in it
            folder.parent.rmdir()


def finished(folder: Path) -> Outcome | None:
    """Return what came out of a run that is finished already, None if it is not."""
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return Outcome(folder, tuple(result["lines"]), result)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"'{folder / RESULT}' is not readable ({first_line(error)})") from error


def toml(recipe: dict[str, Any]) -> str:
    """Return a recipe's tables as TOML text."""
    return tomli_w.dumps(recipe)


def options_from(saved: dict[str, Any]) -> TrainOptions:
    """Return the options that a checkpoint holds."""
    paths = {name: Path(saved[name]) for name in ("data_dir", "out") if saved[name] is not None}
    pairs = {name: tuple(saved[name]) for name in ("epochs", "lr") if saved[name] is not None}
    return TrainOptions(**{**saved, **paths, **pairs})


def write_start(folder: Path, state: RunState, train: ImageStore, val: ImageStore) -> None:
    """Write the resolved recipe, and the list of broken images if there are any."""
    heading = "# The complete recipe of this run: thawnet train DATA --recipe this-file\n"
    write_text(folder / "recipe.toml", heading + toml(state.recipe))
    write_broken(folder, [train, val])


def write_broken(folder: Path, stores: Iterable[ImageStore]) -> None:
    """Write broken.json, what could not be read in any of the stores, if there is anything."""
    broken = sorted({entry for store in stores for entry in store.broken})
    path = folder / "broken.json"
    if broken:
        write_json(path, [{"image": name, "reason": why} for name, why in broken])
    else:
        path.unlink(missing_ok=True)  # they were mended


def write_log(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write log.jsonl, a line per epoch."""
    write_text(folder / LOG, "".join(json.dumps(row) + "\n" for row in history))


def write_network(run: Run, parts: Parts) -> Saved:
    """Write the bundle as soon as the last epoch ends, so that nothing that fails later costs it.

    parts: what validated, measured.
    """
    network, weights, recipe = run.network, run.weights, run.state.recipe
    meaning = Meaning(run.source.classes, run.spec)
    unfamiliarity = None
    if "validation" in parts:  # where a run validates on the test part, nothing is fitted on it
        _, held_out, val = parts["validation"]
        meaning = replace(meaning, temperature=fit_temperature(held_out, val.labels))
        familiarity = fit_familiarity(run, held_out)
        if familiarity is not None:
            unfamiliarity, unfamiliar = familiarity
            meaning = replace(meaning, unfamiliar=unfamiliar)
    exported = export(run, meaning, unfamiliarity)
    saved = Saved(meaning, exported.agreement if exported else None)
    result = _result(run, saved, parts, {})
    write_bundle(
        run.folder / RUN_BUNDLE,
        {
            name: value.detach().cpu().contiguous()
            for name, value in network.net.state_dict().items()
        },
        exported.onnx if exported else None,
        {
            "backbone": network.backbone,
            "padding": weights.padding,
            "epsilon": weights.epsilon,
            "class_weights": exported and exported.class_weights,
        },
        meaning,
        short_hashes(np.concatenate([run.train.hashes, run.val.hashes])),
        _facts(run, saved, result),
        model_card(meaning, network.backbone, weights.licence, recipe, result),
    )
    return saved


def write_end(run: Run, saved: Saved, parts: Parts, to_beat: dict[str, Any]) -> Outcome:
    """Write all that a finished run leaves, result.json last, which marks it so, and sum it up.

    saved: see `write_network`. to_beat: see baseline.baselines.
    """
    folder, state, classes, meaning = run.folder, run.state, run.source.classes, saved.meaning
    part = headline(parts)
    metrics, logits, images = parts[part]
    write_predictions(
        folder / PREDICTIONS,
        part,
        images.names,
        images.labels,
        logits,
        classes,
        meaning.temperature,
    )
    title = f"{run.source.name}, {run.network.backbone}, recipe {state.recipe['name']}"
    # Imported here: matplotlib takes half a second, for which no run need wait at its start.
    from ..report.plots import plot_history

    plot_history(folder / "history.png", state.history, title, state.recipe["validate_on"])
    result = _result(run, saved, parts, to_beat)
    result["opened_from"] = _opened_from(run.options)
    result["standing"] = standing(metrics.accuracy, to_beat[REGRESSION])
    line = quote(part, metrics.accuracy, metrics.images)
    lines = [*_comparison(result, part, len(classes)), line]
    describe_bundle(
        folder / RUN_BUNDLE,
        _facts(run, saved, result),
        model_card(meaning, run.network.backbone, run.weights.licence, state.recipe, result),
    )
    result = {"line": line, "lines": lines, **result}
    write_json(folder / RESULT, result)
    return Outcome(folder, tuple(lines), result)


def _result(run: Run, saved: Saved, parts: Parts, to_beat: dict[str, Any]) -> dict[str, Any]:
    """Return what result.json says, but for its lines."""
    state, classes, temperature = run.state, run.source.classes, saved.meaning.temperature
    return {
        "metrics": {name: _scores(*values, temperature) for name, values in parts.items()},
        "temperature": temperature,
        "baselines": to_beat,
        "phases": _phases(run),
        "seconds": {name: round(value, 2) for name, value in state.seconds.items()},
        "seed": state.recipe["seed"],
        "processes": state.ranks,
        "compiled": state.compiled,
        "cached": state.cached,
        "different": state.different,
        "command": state.command,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "versions": versions(),
        "machine": {**describe(), **run.machine.as_dict()},
        "data": {
            "name": run.source.name,
            "fingerprint": run.lists.fingerprint,
            "own_test": state.own_test,
            **{
                f"{name}_fingerprint": content_of(images, classes)
                for name, (_, _, images) in parts.items()
            },
        },
        "weights": {"origin": run.weights.origin, "sha256": run.weights.digest},
    }


def _facts(run: Run, saved: Saved, result: dict[str, Any]) -> dict[str, Any]:
    """Return what a bundle says of its making. result: see `_result`."""
    weights = run.weights
    return {
        "source": f"{weights.origin}; trained on {run.source.name} by thawnet",
        "license": weights.licence,
        "recipe": run.state.recipe,
        "metrics": result["metrics"],
        "data": result["data"],
        "starting_weights": result["weights"],
        "export": saved.agreement and asdict(saved.agreement),
    }


def _comparison(result: dict[str, Any], part: str, classes: int) -> list[str]:
    scores, to_beat = result["metrics"][part], result["baselines"]
    regression = to_beat[REGRESSION]
    low, high = regression["interval_95"]
    return [
        f"to beat: logistic regression on the frozen features {100 * regression['accuracy']:.2f} % "
        f"({100 * low:.2f}-{100 * high:.2f}), "
        f"the most frequent class {100 * to_beat['majority_class']['accuracy']:.2f} %",
        result["standing"],
        f"balanced accuracy {100 * scores['balanced_accuracy']:.2f} %"
        + (f", top-5 accuracy {100 * scores['top_5']:.2f} %" if classes > 5 else "")
        + ", "
        + calibrated(scores["expected_calibration_error"], fitted_on(result)),
    ]


def content_of(images: ImageStore, classes: Sequence[str]) -> str:
    """Name the images meant and their classes, in whatever order they lie.

    Two runs with the same name here were measured on the same images.
    """
    names = [classes[label] for label in images.labels]
    hashes = [value.tobytes().hex() for value in images.hashes]
    return fingerprint(sorted(zip(hashes, names, strict=True)))


def _scores(
    metrics: Metrics, logits: NDArray[np.float32], images: ImageStore, temperature: float
) -> dict[str, Any]:
    labels = images.labels
    return {
        "accuracy": metrics.accuracy,
        "interval_95": interval(metrics.accuracy, metrics.images),
        "top_5": top_k(logits, labels, 5),
        "balanced_accuracy": balanced_accuracy(logits, labels),
        "expected_calibration_error": {
            "uncalibrated": calibration_error(logits, labels),
            "calibrated": calibration_error(logits, labels, temperature),
        },
        "loss": metrics.loss,
        "images": metrics.images,
    }


def command() -> str:
    """Return the command line as a person would type it again."""
    program = Path(sys.argv[0]).name
    begin = {"__main__.py": ["thawnet"], "main.py": ["python", "main.py"]}.get(program, [program])
    return command_line(*begin, *sys.argv[1:])


def headline(parts: Parts) -> str:
    """Return the part whose accuracy a run is quoted with: the test part, where it was read."""
    return "test" if "test" in parts else "validation"


def _opened_from(options: TrainOptions) -> dict[str, str | None]:
    """Return DATA and its folder as they are found from anywhere, for who opens the data again."""
    folder = None if options.data_dir is None else str(options.data_dir.resolve())
    path = Path(options.data)
    there = options.data not in NAMED and folder is None
    return {"data": str(path.resolve()) if there else options.data, "data_dir": folder}


def fitted_on(result: dict[str, Any]) -> int:
    """Return how many images the temperature was fitted on, 0 where none was."""
    validation = result["metrics"].get("validation")
    return int(validation["images"]) if validation else 0


def _phases(run: Run) -> list[dict[str, Any]]:
    """Return of each phase what it was set to on this data, how long it ran and what it kept.

    epochs: at most; epochs_run: until it ended. kept: the line of the log whose network it kept.
    """
    phases, before = [], 0.0
    for number, asked in enumerate(run.recipe.phases):
        phase = fit(asked, len(run.train))
        if number in run.state.batches:
            phase = scaled(phase, run.state.batches[number])
        rows = [row for row in run.state.history if row["phase"] == number]
        ended = rows[-1]["epoch"]
        phases.append(
            {
                "name": NAMES[number],
                "trains_from": run.network.first_layer(phase.train_from),
                "batch_size": phase.batch_size,
                "lr": phase.lr,
                "patience": phase.patience,
                "epochs": phase.epochs,
                "epochs_run": round(ended - before),
                "kept": next(row for row in rows if row.get("kept")),
            }
        )
        before = ended
    return phases


def _git_commit() -> str | None:
    """Return the commit of the checkout that thawnet runs from, if it runs from one."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],  # noqa: S607 - wherever git is
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
