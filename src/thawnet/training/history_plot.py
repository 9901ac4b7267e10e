"""Plot of a run's history: both phases, with the thaw marked, readable in grey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..core.files import write_atomic
from ..metrics.result import Validation

TRAIN: dict[str, Any] = {
    "color": "#8a8a8a",
    "linestyle": "--",
    "marker": "o",
    "markersize": 4,
    "markerfacecolor": "white",
}
VAL: dict[str, Any] = {"color": "#0b4f8a", "linestyle": "-", "marker": "o", "markersize": 4.5}


def plot_history(path: Path, history: Sequence[Validation], title: str, validated_on: str) -> None:
    """Draw accuracy and loss over all epochs and write a PNG, 1800 x 810 pixels.

    validated_on: 'validation', 'held-out' or 'test', for the legend.
    """
    figure = Figure(figsize=(12, 5.4), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=14, fontweight="bold")
    left, right = figure.subplots(1, 2)
    _curves(left, history, "accuracy", 100.0, "accuracy (%)", validated_on)
    _curves(right, history, "loss", 1.0, "cross-entropy (nats)", validated_on)
    # Head-room for the captions, but no tick above 100 %.
    left.set_yticks([tick for tick in left.get_yticks()[1:-1] if tick <= 100])
    last = next((row for row in reversed(history) if row.kept), history[-1])
    epoch, accuracy = last.epoch, 100 * last.val_accuracy
    left.plot(epoch, accuracy, marker="o", markersize=8, color=VAL["color"], zorder=4)
    left.annotate(
        f"{accuracy:.1f} %",
        (epoch, accuracy),
        xytext=(4, 10) if epoch > history[-1].epoch / 2 else (-4, 10),
        textcoords="offset points",
        ha="right" if epoch > history[-1].epoch / 2 else "left",
        fontweight="bold",
        color=VAL["color"],
    )
    left.legend(loc="best", frameon=False)  # with few photos the curves may be anywhere
    write_atomic(path, lambda file: figure.savefig(file, format="png"))


def spacing(points: int) -> int:
    """Return n, where every n-th point of a curve has a marker.

    More would overlap; dashes still distinguish the curves.
    """
    return 1 if points <= 40 else points // 20


def thawed_at(epochs: Sequence[float], first: int) -> float:
    """Return where to mark the thaw, between the head's last point and the next point.

    first: number of the head's points.
    """
    return epochs[first - 1] + min(0.5, (epochs[first] - epochs[first - 1]) / 2)


def _curves(
    axes: Axes, history: Sequence[Validation], key: str, scale: float, title: str, validated_on: str
) -> None:
    epochs = [row.epoch for row in history]
    every = spacing(len(history))
    for name, label, look in (("train", "training", TRAIN), ("val", validated_on, VAL)):
        values = [scale * getattr(row, f"{name}_{key}") for row in history]
        axes.plot(epochs, values, label=label, markevery=every, **look)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
    first = sum(row.phase == 0 for row in history)
    if 0 < first < len(history):
        thaw = thawed_at(epochs, first)
        axes.axvline(thaw, color="black", linewidth=1.2, linestyle=":")
        axes.axvspan(thaw, epochs[-1] + 0.5, color="#f4ead8", zorder=0)
        # A solved head has one point, with no room for its caption beside it.
        captions = (("head only", -1), ("thawed: fine-tuning", 1))[first == 1 :]
        for caption, side in captions:
            axes.annotate(
                caption,
                (thaw, 0.985),
                xycoords=axes.get_xaxis_transform(),
                xytext=(6 * side, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="top",
            )
    axes.set_xlim(0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(title)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
