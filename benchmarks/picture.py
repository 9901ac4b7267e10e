"""The picture: held-out accuracy against wall time, from the start of each process."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from claims import of
from figures import REFERENCE, keras_run, reached
from thawnet.files import write_atomic
from thawnet.report.plots import HELD_OUT

INK = "#333333"
PALE = "#8a8a8a"
QUICK = str(HELD_OUT["color"])
FULL = "#c4661f"
KERAS = "#7a3b8f"
TICKS = (10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)  # seconds

Rows = Mapping[str, Mapping[str, Any]]
Epochs = Sequence[Mapping[str, Any]]


def draw(path: Path, rows: Rows, machine: str) -> bool:
    """Write a PNG, 1800 x 930 pixels; return False if no row holds a curve.

    rows: by name, those measured on a CPU.
    """
    curves = [curve for curve in _curves(rows) if curve[1]]
    if not curves:
        return False
    figure = Figure(figsize=(12, 6.2), dpi=150, layout="constrained")
    figure.suptitle(
        "CIFAR-100, MobileNetV2: accuracy against wall time", fontsize=14, weight="bold"
    )
    axes = figure.subplots()
    _frame(axes, [row["at"] for _, epochs, _ in curves for row in epochs], machine)
    for label, epochs, look in curves:
        axes.plot(
            [row["at"] for row in epochs], [100 * row["val_accuracy"] for row in epochs], **look
        )
        if label:
            _name(axes, label, epochs[-1], str(look["color"]))
    _compare(axes, rows)
    write_atomic(path, lambda file: figure.savefig(file, format="png"))
    return True


def _curves(rows: Rows) -> list[tuple[str, Epochs, dict[str, Any]]]:
    """Return what is drawn: a label at its end, or none, its epochs and its look."""
    thick = {"marker": "o", "markersize": 4.5, "linewidth": 2.2, "zorder": 3}
    thin = {"linewidth": 1.0, "alpha": 0.45, "zorder": 2}
    found: list[tuple[str, Epochs, dict[str, Any]]] = []
    if "quick" in rows:
        pairs = of(rows, "quick")["pairs"]
        # The seed whose end is in the middle stands for all; the others show the spread.
        order = sorted(pairs, key=lambda pair: pair["cold"]["epochs"][-1]["at"])
        middle = order[len(order) // 2]
        found += [
            ("", pair["cold"]["epochs"], {"color": QUICK, **thin})
            for pair in pairs
            if pair is not middle
        ]
        found.append(("quick, empty caches", middle["cold"]["epochs"], {"color": QUICK, **thick}))
        warm = {"color": QUICK, **thick, "linestyle": "--", "markerfacecolor": "white"}
        found.append(("quick, warm cache", middle["warm"]["epochs"], warm))
    if "full" in rows:
        found.append(("full", of(rows, "full")["run"]["epochs"], {"color": FULL, **thick}))
    if "seed" in rows:
        seed = of(rows, "seed")["whole"]["epochs"]
        found.append(("main.py (seed)", seed, {"color": INK, **thick}))
    if "keras" in rows:
        found.append(("Keras script", of(rows, "keras")["epochs"], {"color": KERAS, **thick}))
    if "timm-whole" in rows:
        found.append(("timm loop", of(rows, "timm-whole")["epochs"], {"color": PALE, **thick}))
    return found


def _frame(axes: Axes, at: Sequence[float], machine: str) -> None:
    axes.set_xscale("log")
    axes.set_xlim(min(at) / 1.3, max(at) * 2.1)  # room for the names at the ends
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


def _name(axes: Axes, label: str, end: Mapping[str, Any], colour: str) -> None:
    accuracy = 100 * end["val_accuracy"]
    axes.annotate(
        f"{label}\n{accuracy:.1f} %",
        (end["at"], accuracy),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        weight="bold",
    )


def _compare(axes: Axes, rows: Rows) -> None:
    """Draw the way from where `quick` passes the reference to where the Keras script ends."""
    if "quick" not in rows:
        return
    pairs = of(rows, "quick")["pairs"]
    passed = [reached(pair["cold"]["epochs"], REFERENCE) for pair in pairs]
    if None in passed:
        return
    start = statistics.median(at for at in passed if at is not None)
    end = statistics.median(keras_run(pair["keras"]).total for pair in pairs)
    low, _ = axes.get_ylim()
    left, right = axes.get_xlim()
    axes.set_xlim(left, max(right, end * 2.1))
    for at in (start, end):
        axes.vlines(at, low, 100 * REFERENCE, color=PALE, linewidth=1.0, linestyle=":", zorder=1)
    height = low + 0.06 * (100 * REFERENCE - low)
    axes.annotate(
        "", (end, height), (start, height), arrowprops={"arrowstyle": "<->", "color": INK}
    )
    axes.annotate(
        f"{end / start:.1f} x the time: the Keras script's 20 epochs",
        ((start * end) ** 0.5, height),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        color=INK,
    )
    axes.set_ylim(low)
