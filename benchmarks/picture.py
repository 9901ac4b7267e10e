"""The picture: held-out accuracy against wall time, from the start of each process."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from figures import REFERENCE, keras_run, reached
from measured import faster_to, of
from records import machines
from thawnet.core.files import write_atomic
from thawnet.training.history_plot import VAL

INK = "#333333"
PALE = "#8a8a8a"
QUICK = str(VAL["color"])
FULL = "#c4661f"
BEST = "#2f7d4f"
SPEED = "#a3205a"
KERAS = "#7a3b8f"
ROOM = 2.1  # on the right, for the names at the ends of curves
TICKS = (10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)  # seconds

DRAWN = ("quick", "full", "seed", "keras", "timm-whole")  # rows on a CPU that hold curves
ON_GPU = {"quick": QUICK, "full": FULL, "best": BEST, "speed": SPEED}  # a row for each seed

# Of a name: points away from the end of its curve, and which of its own ends lies there.
PLACES = {
    "right": ((9, 0), "left", "center"),
    "above left": ((2, 8), "right", "bottom"),
    "above right": ((-2, 8), "left", "bottom"),
}

Rows = Mapping[str, Mapping[str, Any]]
Epochs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """A line of the picture, pale without a name; place: where that stands beside its end."""

    name: str
    epochs: Epochs
    colour: str
    place: str = "right"
    dashed: bool = False


def draw(path: Path, cpu: Rows, gpu: Rows) -> bool:
    """Write a PNG, 1800 x 930 pixels, 1800 x 1425 with a GPU; return False if no row has a curve.

    cpu, gpu: rows by name, by what they were measured on.
    """
    above = [*_quick(cpu), *_others(cpu)]
    below = [curve for recipe in ON_GPU for curve in _seeds(gpu, recipe)]
    drawn = {name: cpu[name] for name in DRAWN if name in cpu}
    panels = [(curves, rows) for curves, rows in ((above, drawn), (below, gpu)) if curves]
    if not panels:
        return False
    figure = Figure(figsize=(12, 6.2 if len(panels) == 1 else 9.5), dpi=150, layout="constrained")
    title = "CIFAR-100, MobileNetV2: accuracy against wall time"
    figure.suptitle(title, fontsize=14, weight="bold")
    shares = [2.0, 1.0][: len(panels)]
    grid = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=shares)
    at = [row["at"] for curves, _ in panels for curve in curves for row in curve.epochs]
    for axes, (curves, rows) in zip(grid[:, 0], panels, strict=True):
        _frame(axes, at, machines(rows))
        for curve in curves:
            _draw(axes, curve)
        if "quick" in rows:  # beside the Keras script; on a GPU each seed is a row
            _compare(axes, cpu)
    grid[-1, 0].set_xlabel("wall time from the start of the process")
    write_atomic(path, lambda file: figure.savefig(file, format="png"))
    return True


def _quick(rows: Rows) -> list[Curve]:
    """Return every run, pale, and over them those of the seed whose end is in the middle."""
    if "quick" not in rows:
        return []
    pairs = sorted(of(rows, "quick")["pairs"], key=lambda pair: pair["cold"]["epochs"][-1]["at"])
    middle = pairs[len(pairs) // 2]
    return [
        *(Curve("", pair[kind]["epochs"], QUICK) for pair in pairs for kind in ("cold", "warm")),
        Curve("quick, empty caches", middle["cold"]["epochs"], QUICK, "above right"),
        Curve("quick, warm cache", middle["warm"]["epochs"], QUICK, "above left", dashed=True),
    ]


def _seeds(rows: Rows, recipe: str) -> list[Curve]:
    """Return a recipe's seeds on a GPU, pale, and over them the one that ends in the middle."""
    names = [name for name in rows if name.rpartition("-")[0] == recipe]
    runs = sorted(
        (of(rows, name)["run"]["epochs"] for name in names), key=lambda run: run[-1]["at"]
    )
    if not runs:
        return []
    colour = ON_GPU[recipe]
    return [*(Curve("", run, colour) for run in runs), Curve(recipe, runs[len(runs) // 2], colour)]


def _others(rows: Rows) -> list[Curve]:
    found = []
    if "full" in rows:
        found.append(Curve("full", of(rows, "full")["run"]["epochs"], FULL))
    if "seed" in rows:
        epochs = of(rows, "seed")["whole"]["epochs"]
        found.append(Curve("main.py (seed)", epochs, INK, "above left"))
    if "keras" in rows:
        found.append(Curve("Keras script", of(rows, "keras")["epochs"], KERAS))
    if "timm-whole" in rows:
        found.append(Curve("timm loop", of(rows, "timm-whole")["epochs"], PALE))
    return found


def _points(epochs: Epochs) -> tuple[list[float], list[float]]:
    return [row["at"] for row in epochs], [100 * row["val_accuracy"] for row in epochs]


def _draw(axes: Axes, curve: Curve) -> None:
    if not curve.name:
        axes.plot(*_points(curve.epochs), color=curve.colour, linewidth=1.0, alpha=0.4)
        return
    axes.plot(
        *_points(curve.epochs),
        color=curve.colour,
        linewidth=2.2,
        linestyle="--" if curve.dashed else "-",
        marker="o",
        markersize=5,
        markerfacecolor="white" if curve.dashed else curve.colour,
        markeredgecolor=curve.colour if curve.dashed else "white",
        zorder=3,
    )
    end = curve.epochs[-1]
    accuracy = 100 * end["val_accuracy"]
    away, ha, va = PLACES[curve.place]
    axes.annotate(
        f"{curve.name}\n{accuracy:.1f} %",
        (end["at"], accuracy),
        xytext=away,
        textcoords="offset points",
        ha=ha,
        va=va,
        color=curve.colour,
        weight="bold",
    )


def _frame(axes: Axes, at: Sequence[float], machine: str) -> None:
    axes.set_xscale("log")
    axes.set_xlim(min(at) / 1.3, max(at) * ROOM)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: _duration(value)))
    axes.set_title(machine, fontsize=10, color=INK, loc="left")
    axes.set_ylabel("accuracy on held-out images (%)")
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(100 * REFERENCE, color=INK, linewidth=1.2, linestyle=":", zorder=1)
    axes.annotate(
        f"{100 * REFERENCE:.2f} %, which the reference's author reports",
        (0, 100 * REFERENCE),
        xycoords=axes.get_yaxis_transform(),
        xytext=(6, 4),
        textcoords="offset points",
        color=INK,
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def _compare(axes: Axes, rows: Rows) -> None:
    """Draw the way from where `quick` passes the reference to where the Keras script ends."""
    pairs = of(rows, "quick")["pairs"]
    passed = [reached(pair["cold"]["epochs"], REFERENCE) for pair in pairs]
    ratios = [ratio for ratio in faster_to(rows, REFERENCE) if ratio is not None]
    if len(ratios) < len(pairs):
        return
    start = statistics.median(at for at in passed if at is not None)
    end = statistics.median(keras_run(pair["keras"]).total for pair in pairs)
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    height = low - 0.04 * (high - low)
    for at in (start, end):
        axes.vlines(at, height, 100 * REFERENCE, color=PALE, linewidth=1.2, linestyle=":", zorder=1)
    arrow = {"arrowstyle": "<->", "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end, height), (start, height), arrowprops=arrow)
    axes.annotate(
        f"{statistics.median(ratios):.1f} x as long: the Keras script's 20 epochs",
        ((start * end) ** 0.5, height),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        color=INK,
    )
    axes.set_ylim(height - 0.04 * (high - low), high)
    axes.set_xlim(left, max(right, end * ROOM))
