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

from claims import faster_to, of
from figures import REFERENCE, keras_run, reached
from thawnet.files import write_atomic
from thawnet.report.plots import HELD_OUT

INK = "#333333"
PALE = "#8a8a8a"
QUICK = str(HELD_OUT["color"])
FULL = "#c4661f"
KERAS = "#7a3b8f"
ROOM = 2.1  # on the right, for the names at the ends of curves
TICKS = (10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)  # seconds

DRAWN = ("quick", "full", "seed", "keras", "timm-whole")  # rows that hold curves

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
    """A line of the picture; place: where its name stands beside its end."""

    name: str
    epochs: Epochs
    colour: str
    place: str = "right"
    dashed: bool = False


def draw(path: Path, rows: Rows, machine: str) -> bool:
    """Write a PNG, 1800 x 930 pixels; return False if no row holds a curve.

    rows: by name, those measured on a CPU.
    """
    pairs = of(rows, "quick")["pairs"] if "quick" in rows else []
    curves = [*_quick(pairs), *_others(rows)]
    if not curves:
        return False
    figure = Figure(figsize=(12, 6.2), dpi=150, layout="constrained")
    title = "CIFAR-100, MobileNetV2: accuracy against wall time"
    figure.suptitle(title, fontsize=14, weight="bold")
    axes = figure.subplots()
    _frame(axes, [row["at"] for curve in curves for row in curve.epochs], machine)
    for pair in pairs:  # every seed, pale; the one in the middle is drawn over them
        for kind in ("cold", "warm"):
            axes.plot(*_points(pair[kind]["epochs"]), color=QUICK, linewidth=1.0, alpha=0.4)
    for curve in curves:
        _draw(axes, curve)
    if pairs:
        _compare(axes, rows)
    write_atomic(path, lambda file: figure.savefig(file, format="png"))
    return True


def _quick(pairs: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Return the runs of the seed whose end is in the middle."""
    if not pairs:
        return []
    order = sorted(pairs, key=lambda pair: pair["cold"]["epochs"][-1]["at"])
    middle = order[len(order) // 2]
    return [
        Curve("quick, empty caches", middle["cold"]["epochs"], QUICK, "above right"),
        Curve("quick, warm cache", middle["warm"]["epochs"], QUICK, "above left", dashed=True),
    ]


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
    axes.set_xlabel(f"wall time from the start of the process ({machine})")
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
