"""RESULTS.md: the tables, and under them what each row ran and every figure it found."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import claims
import figures
import gpu
import rows
from claims import Claim
from figures import REFERENCE, keras_run, reached, seed_run
from picture import draw
from records import KINDS, Record, Records, load, machines
from rows import Row
from thawnet.core.files import write_text
from trials import ROOT

HEAD = """# Results

Written by `make bench` and `make bench-gpu` from the files under results/, which hold every single
figure; `make bench ROW=NAME` does one row again. Clocks start with the process. A ratio is taken
between runs next to each other; the table gives the median, the least and the most of them.
"""

PICTURE = """![accuracy against wall time](accuracy.png)

Accuracy on validation images; of main.py and the rivals on test images, as the reference's author
did. Pale: the other seeds. On a GPU the wait for a step to compile is the flat part.
"""


def write(folder: Path) -> None:
    """Write RESULTS.md and accuracy.png from the files under results/ in a folder."""
    found = load(folder / "results")
    drawn = draw(folder / "accuracy.png", found["cpu"], found["gpu"])
    picture = [PICTURE] if drawn else []
    sections = [
        _section(kind, row, found[kind][row.name])
        for kind, known in (("cpu", rows.ROWS), ("gpu", gpu.ROWS))
        for row in known
        if row.name in found[kind]
    ]
    write_text(folder / "RESULTS.md", "\n".join([HEAD, *picture, tables(found), *sections]))


def tables(found: Records, kinds: Sequence[str] = KINDS) -> str:
    """Return the tables of some kinds of machine, each under its name."""
    lines = {"cpu": claims.on_cpu, "gpu": claims.on_gpu}
    return "\n".join(
        f"## {machines(found[kind]) or kind.upper()}\n\n{_table(lines[kind](found[kind]))}"
        for kind in kinds
    )


def _table(lines: Sequence[Claim]) -> str:
    body = [(each.what, each.asked, each.measured, each.verdict) for each in lines]
    return table(("what", "asked", "measured", ""), body)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rule = ["---"] * len(head)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *body))


def _section(kind: str, row: Row, record: Record) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in record["versions"].items())
    commands = "".join(f"    {command}\n" for command in record["commands"])
    changed = "" if record["source"] else ", with changes that are not committed"
    title = row.name if kind == "cpu" else f"{row.name}, GPU"
    return (
        f"## {title}\n\n{row.what[0].upper()}{row.what[1:]}. "
        f"{record['date']}, commit {record['commit'] or 'unknown'}{changed}; "
        f"{machines({'': record})}; {versions}. "
        f"All figures: results/{kind}/{row.name}.json\n\n{commands}\n"
        + DETAILS[row.name.split("-")[0]](record["figures"])
    )


# --- figures of each row ------------------------------------------------------------------------


def _quick(found: Mapping[str, Any]) -> str:
    runs = [
        (f"quick, seed {pair[kind]['seed']}, {kind}", pair[kind])
        for pair in found["pairs"]
        for kind in ("cold", "warm")
    ]
    return _keras_timed(found["pairs"]) + "\n" + _runs(runs)


def _keras_timed(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of what was timed of the Keras script, and what follows from it."""
    first = pairs[0]["keras"]
    per_epoch = first["images"] / first["batch"]
    checks = first["held_out"] / first["batch"]
    steps = len(first["phases"][0]["train"]["rest"])
    body = []
    for pair in pairs:
        timed = pair["keras"]
        cells = [f"{timed[name]:.1f} s" for name in ("start", "data", "model", "fill")]
        for phase in timed["phases"]:
            for part in ("train", "validate"):
                cells.append(f"{1000 * statistics.fmean(phase[part]['rest']):.0f} ms")
        body.append([*cells, f"{keras_run(timed).total:,.0f} s"])
    return (
        f"Keras script: {steps} steps of each phase and as many of validation timed after "
        f"{first['warm']} to warm up, and extrapolated to 2 x {figures.EPOCHS} epochs of "
        f"{per_epoch:g} steps of training and {checks:g} of validation. The figures of steps are "
        "means.\n\n"
        + table(
            [
                *("start", "data", "model", "shuffle", "step, phase 1", "validation, phase 1"),
                *("step, phase 2", "validation, phase 2", "whole, extrapolated"),
            ],
            body,
        )
    )


def _runs(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return a table of runs of thawnet, and the accuracies of their epochs."""
    stages = list(dict.fromkeys(stage for _, run in runs for stage in run["seconds"]))
    stages = [stage for stage in stages if stage not in ("in all", "this process")]
    body = []
    for name, run in runs:
        at = reached(run["epochs"], REFERENCE)
        body.append(
            [
                name,
                f"{run['wall']:.1f} s",
                f"{at:.1f} s" if at else "never",
                ", ".join(
                    f"{part} {100 * scores['accuracy']:.2f} %"
                    for part, scores in run["metrics"].items()
                ),
                f"{run['memory'] / 1e9:.2f} GB",
                *(f"{run['seconds'].get(stage, 0):.1f} s" for stage in stages),
            ]
        )
    head = ["run", "whole", f"{100 * REFERENCE:.2f} % after", "accuracy", "memory", *stages]
    curves = "".join(f"- {name}: {_curve(run['epochs'])}\n" for name, run in runs)
    return f"{table(head, body)}\nAccuracy on validation after each epoch:\n\n{curves}"


def _curve(epochs: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{100 * row['val_accuracy']:.2f} % at {row['at']:.0f} s" for row in epochs)


def _epochs(found: Mapping[str, Any]) -> str:
    return f"Accuracy on test after each epoch: {_curve(found['epochs'])}\n"


def _seed(found: Mapping[str, Any]) -> str:
    if "short" in found:
        return _extrapolated([found["short"]]) + "\n" + _runs([("main.py", found["short"])])
    shorts = [pair["seed"] for pair in found["pairs"]]
    runs = [("main.py, whole", found["whole"])]
    runs += [(f"main.py, short, turn {turn}", run) for turn, run in enumerate(shorts, start=1)]
    return f"{_keras_timed(found['pairs'])}\n{_extrapolated(shorts)}\n{_runs(runs)}"


def _extrapolated(shorts: Sequence[Mapping[str, Any]]) -> str:
    whole = ", ".join(f"{seed_run(run).total:,.0f} s" for run in shorts)
    return (
        f"main.py: 1 + 2 epochs timed and extrapolated to 2 x {figures.EPOCHS}, the first of phase "
        f"1 and the second of phase 2 standing for the others: {whole}.\n"
    )


def _timm(found: Mapping[str, Any]) -> str:
    if "epochs" in found:
        return _epochs(found)
    body = []
    for pair in found["pairs"]:
        timed = pair["timm"]
        body.append(
            [
                f"{1000 * statistics.fmean(timed['train']['rest']):.0f} ms",
                f"{timed['batch'] / statistics.fmean(timed['train']['rest']):.1f}",
                f"{figures.timm_epoch(timed):,.0f} s",
                f"{claims.thawed_speed(pair['full']):.1f}",
            ]
        )
    first = found["pairs"][0]["timm"]
    runs = [
        (f"full-gpu, turn {turn}", pair["full"])
        for turn, pair in enumerate(found["pairs"], start=1)
    ]
    return (
        f"timm's loop: {len(first['train']['rest'])} steps timed after {first['warm']} to warm up, "
        f"and extrapolated to an epoch of {first['images'] / first['batch']:g}; `full-gpu`: the "
        "last epoch.\n\n"
        + table(
            ("timm: step", "timm: images/s", "timm: epoch, extrapolated", "full-gpu: images/s"),
            body,
        )
        + "\n"
        + _runs(runs)
    )


def _trunk(found: Mapping[str, Any]) -> str:
    names = list(found["tried"])
    tried = [
        [
            name,
            one["precision"],
            str(one["threads"]),
            ", ".join(
                f"{batch}: {value:,.0f}" for batch, value in one["images_per_second"].items()
            ),
            str(one["best_batch"]),
            f"{found['deviations'][name]:.1e}",
        ]
        for name, one in found["tried"].items()
    ]
    turns = [[f"{turn[name]:,.0f}" for name in names] for turn in found["turns"]]
    head = ("contender", "precision", "threads", "images/s by batch", "chosen", "deviation")
    return (
        "First every batch was tried, then all took turns at their best, a process each. thawnet "
        "divides what it is given by itself. Deviation: of the features from eager PyTorch's, as "
        f"a share of the largest.\n\n{table(head, tried)}\nImages/s, turn by turn:\n\n"
        + table(names, turns)
    )


def _share(found: Mapping[str, Any]) -> str:
    pairs = zip(found["whole"], found["compute"], claims.shares(found), strict=True)
    body = [[f"{whole:.2f} s", f"{ready:.2f} s", f"{part:.1f} %"] for whole, ready, part in pairs]
    ready = "on one ready batch" if found.get("fixed") else "on ready batches"
    return (
        f"{found['steps']} steps of {found['batch']} images an epoch, {found['precision']}, "
        f"{'compiled' if found['compiled'] else 'eager'}; one epoch before, of "
        f"{found['first']:.1f} s, was not counted.{_floor(found)}\n\n"
        + table(("epoch as a run does it", ready, "share"), body)
    )


def _floor(found: Mapping[str, Any]) -> str:
    """Say what a step takes at least, where it was worked out."""
    if "floor" not in found:
        return ""
    least = found["floor"]
    steps = [1000 * seconds / found["steps"] for seconds in found["compute"]]
    copies, multiplies = least["bandwidth"] / 1e9, least["rate"] / 1e12
    return (
        f" A step on ready batches takes {statistics.median(steps):.2f} ms (median), and at least "
        f"{1000 * least['seconds']:.2f} ms by its bytes and operations (benchmarks/floor.py) at "
        f"what the device copies, {copies:,.0f} GB/s, and multiplies, {multiplies:,.1f} TFLOP/s."
    )


def _scale(found: Mapping[str, Any]) -> str:
    fit = claims.fitted(found["runs"])
    runs = [(f"{run['images']:,} images", run) for run in found["runs"]]
    return (
        f"Seconds of the whole run: {fit.a:.1f} + {1000 * fit.b:.3f} for each 1,000 images, by "
        f"least squares of the relative errors.\n\n{_runs(runs)}"
    )


def _predict(found: Mapping[str, Any]) -> str:
    body = []
    for name, shown in (("small", "32 x 32"), ("large", "500 x 375")):
        images = found[name]["images"]
        for turn in found[name]["turns"]:
            speeds = [f"{images / turn[part]:,.0f}" for part in ("decode", "network", "predict")]
            body.append([shown, *speeds])
    starts = ", ".join(f"{seconds:.2f} s" for seconds in found["starts"])
    memory = ", ".join(
        f"{held / 1e6:.0f} MB for {int(images):,} images"
        for images, held in found["memory"].items()
    )
    return (
        f"The embedded network. One image of 500 x 375, process start to answer: {starts}. "
        f"Anonymous memory: {memory}. Images/s, turn by turn, with all cores:\n\n"
        + table(("JPEGs", "decoding alone", "network alone", "prediction"), body)
    )


def _one(found: Mapping[str, Any]) -> str:
    return _runs([("run", found["run"])])


def _quick_anywhere(found: Mapping[str, Any]) -> str:
    return _quick(found) if "pairs" in found else _one(found)


DETAILS = {
    "quick": _quick_anywhere,
    "keras": _epochs,
    "seed": _seed,
    "timm": _timm,
    "trunk": _trunk,
    "share": _share,
    "scale": _scale,
    "full": _one,
    "best": _one,
    "speed": _one,
    "predict": _predict,
}


if __name__ == "__main__":
    write(ROOT / "benchmarks")  # after files under results/ came from another machine
