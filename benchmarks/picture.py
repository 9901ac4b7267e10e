"""Plot of held-out accuracy against wall time, from the start of each process."""

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

from figures import REFERENCE, Rows, keras_over_quick, keras_seconds, reached
from thawnet.core.files import write_atomic
from thawnet.training.history_plot import VAL

INK = "#333333"
PALE = "#8a8a8a"
RECIPES = {
    "quick": str(VAL["color"]),
    "full": "#c4661f",
    "best": "#2f7d4f",
    "speed": "#a3205a",
}
KERAS = "#7a3b8f"
ROOM = 2.1  # factor on the x axis: room for the names at the ends of curves
TICKS = (10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)  # seconds

# Position of a name: its offset in points from the end of its curve, and its alignment.
RIGHT = {"xytext": (9, 0), "ha": "left", "va": "center"}
ABOVE_LEFT = {"xytext": (2, 8), "ha": "right", "va": "bottom"}
ABOVE_RIGHT = {"xytext": (-2, 8), "ha": "left", "va": "bottom"}

Epochs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """The runs of one name: all pale, and over them the one of median duration."""

    name: str
    colour: str
    runs: list[Epochs]
    label: Mapping[str, Any]
    dashed: bool = False


def draw(path: Path, kinds: Sequence[tuple[str, str, Rows]]) -> bool:
    """Write a PNG and return True, or return False if no row has a curve.

    It has 1800 x 930 pixels, 1800 x 1425 with both kinds. kinds: 'cpu' or 'gpu', the machine's
    name, and its rows' measurements.
    """
    panels = []
    for kind, machine, rows in kinds:
        if curves := _on_cpu(rows) if kind == "cpu" else _on_gpu(rows):
            panels.append((curves, machine, rows))
    if not panels:
        return False
    figure = Figure(figsize=(12, 6.2 if len(panels) == 1 else 9.5), dpi=150, layout="constrained")
    title = "CIFAR-100, MobileNetV2: accuracy against wall time"
    figure.suptitle(title, fontsize=14, weight="bold")
    heights = [2.0, 1.0][: len(panels)]
    grid = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)
    curves = [curve for some, _, _ in panels for curve in some]
    at = [row["at"] for curve in curves for run in curve.runs for row in run]
    for axes, (curves, machine, rows) in zip(grid[:, 0], panels, strict=True):
        _frame(axes, at, machine)
        for curve in curves:
            _draw(axes, curve)
        if "quick" in rows:  # on the CPU, beside the Keras script; on a GPU, each seed is a row
            _compare(axes, rows)
    grid[-1, 0].set_xlabel("wall time from the start of the process")
    write_atomic(path, lambda file: figure.savefig(file, format="png"))
    return True


def _on_cpu(rows: Rows) -> list[Curve]:
    curves = []
    if "quick" in rows:
        for kind, name, label in (
            ("cold", "quick, empty caches", ABOVE_RIGHT),
            ("warm", "quick, warm cache", ABOVE_LEFT),
        ):
            runs = [pair[kind]["epochs"] for pair in rows["quick"]["pairs"]]
            curves.append(Curve(name, RECIPES["quick"], runs, label, kind == "warm"))
    if "full" in rows:
        curves.append(Curve("full", RECIPES["full"], [rows["full"]["run"]["epochs"]], RIGHT))
    if "seed" in rows:
        curves.append(Curve("main.py (seed)", INK, [rows["seed"]["whole"]["epochs"]], ABOVE_LEFT))
    if "keras" in rows:
        curves.append(Curve("Keras script", KERAS, [rows["keras"]["epochs"]], RIGHT))
    return curves


def _on_gpu(rows: Rows) -> list[Curve]:
    curves = []
    for recipe, colour in RECIPES.items():
        names = [name for name in rows if name.startswith(f"{recipe}-")]
        if names:
            runs = [rows[name]["run"]["epochs"] for name in names]
            curves.append(Curve(recipe, colour, runs, RIGHT))
    return curves


def _draw(axes: Axes, curve: Curve) -> None:
    runs = sorted(curve.runs, key=lambda run: run[-1]["at"])
    for run in runs:
        axes.plot(*_points(run), color=curve.colour, linewidth=1.0, alpha=0.4)
    at, accuracies = _points(runs[len(runs) // 2])
    axes.plot(
        at,
        accuracies,
        color=curve.colour,
        linewidth=2.2,
        linestyle="--" if curve.dashed else "-",
        marker="o",
        markersize=5,
        markerfacecolor="white" if curve.dashed else curve.colour,
        markeredgecolor=curve.colour if curve.dashed else "white",
        zorder=3,
    )
    axes.annotate(
        f"{curve.name}\n{accuracies[-1]:.1f} %",
        (at[-1], accuracies[-1]),
        textcoords="offset points",
        color=curve.colour,
        weight="bold",
        **curve.label,
    )


def _points(epochs: Epochs) -> tuple[list[float], list[float]]:
    return [row["at"] for row in epochs], [100 * row["val_accuracy"] for row in epochs]


def _frame(axes: Axes, at: Sequence[float], machine: str) -> None:
    axes.set_xscale("log")
    axes.set_xlim(min(at) / 1.3, max(at) * ROOM)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.0f} s" if value < 60 else f"{value / 60:.0f} min")
    )
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


def _compare(axes: Axes, rows: Rows) -> None:
    """Draw an arrow from where `quick` passes the reference to where the Keras script ends."""
    pairs = rows["quick"]["pairs"]
    passed = [at for pair in pairs if (at := reached(pair["cold"]["epochs"], REFERENCE))]
    ratios = [ratio for ratio in keras_over_quick(rows, REFERENCE) if ratio]
    if len(ratios) < len(pairs):
        return
    start = statistics.median(passed)
    end = statistics.median(keras_seconds(pair["keras"]) for pair in pairs)
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    bottom = low - 0.04 * (high - low)
    axes.vlines(
        (start, end), bottom, 100 * REFERENCE, color=PALE, linewidth=1.2, linestyle=":", zorder=1
    )
    arrow = {"arrowstyle": "<->", "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end, bottom), (start, bottom), arrowprops=arrow)
    axes.annotate(
        f"{statistics.median(ratios):.1f} x as long: the Keras script's 20 epochs",
        ((start * end) ** 0.5, bottom),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        color=INK,
    )
    axes.set_ylim(bottom - 0.04 * (high - low), high)
    axes.set_xlim(left, max(right, end * ROOM))
