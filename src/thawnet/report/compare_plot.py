"""Plot of two runs: histories, accuracies, their difference, and the counts behind the test."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ..core.files import write_atomic
from ..core.text import printable
from ..metrics.accuracy import interval
from ..metrics.paired import difference_interval, evidence, headline
from ..training.history_plot import spacing, thawed_at
from .compare import Comparison

# Distinct in hue for every kind of colour vision, in lightness when printed in grey, and in shape.
LOOKS: dict[str, dict[str, Any]] = {
    "A": {"color": "#0b4f8a", "linestyle": "-", "marker": "o", "markersize": 5},
    "B": {
        "color": "#c2610a",
        "linestyle": (0, (4, 1.5)),
        "marker": "s",
        "markersize": 5.5,
        "markerfacecolor": "white",
    },
}
NAME_LENGTH = 88  # characters of a run's name that fit beside its key


def plot_comparison(path: Path, comparison: Comparison) -> None:
    """Write the plot as a PNG of 1800 x 960 pixels. Raises RunError if it cannot be written."""
    figure = Figure(figsize=(12, 6.4), dpi=150)
    grid = figure.add_gridspec(
        3,
        2,
        width_ratios=(1.25, 1),
        height_ratios=(1.25, 1, 1.25),
        left=0.065,
        right=0.975,
        bottom=0.085,
        top=0.755,
        wspace=0.17,
        hspace=0.95,
    )
    _heading(figure, comparison)
    _histories(figure.add_subplot(grid[:, 0]), comparison)
    _accuracies(figure.add_subplot(grid[0, 1]), comparison)
    _difference(figure.add_subplot(grid[1, 1]), comparison)
    _discordant(figure.add_subplot(grid[2, 1]), comparison)
    with warnings.catch_warnings():
        # A run's name may hold letters that the font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        write_atomic(path, lambda file: figure.savefig(file, format="png"))


def _heading(figure: Figure, comparison: Comparison) -> None:
    left = 0.012
    title = headline(comparison.pairs)
    figure.text(left, 0.975, title[0].upper() + title[1:], size=16, weight="bold", va="top")
    facts = (
        shortened(comparison.a.result.data.name, 30)
        + ": "
        + evidence(comparison.pairs, comparison.images)
    )
    figure.text(left, 0.927, facts, size=11, va="top", parse_math=False)
    runs = comparison.runs.items()
    legend = figure.legend(
        [Line2D([], [], linewidth=1.8, **LOOKS[name]) for name, _ in runs],
        [f"{name}   {shortened(str(run.folder), NAME_LENGTH)}" for name, run in runs],
        loc="upper left",
        bbox_to_anchor=(left, 0.884),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=3.2,
        fontsize=11,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def shortened(text: str, most: int) -> str:
    """Shorten text to `most` characters by cutting the middle: the end of a path says more."""
    text = printable(text)
    if len(text) <= most:
        return text
    head = most // 4
    return text[:head] + "…" + text[head + 1 - most :]


def _histories(axes: Axes, comparison: Comparison) -> None:
    runs = comparison.runs
    longest = max(run.history[-1].epoch for run in runs.values())
    every = spacing(max(len(run.history) for run in runs.values()))
    for name, run in runs.items():
        values = [100 * row.val_accuracy for row in run.history]
        epochs = [row.epoch for row in run.history]
        axes.plot(epochs, values, markevery=every, linewidth=1.8, **LOOKS[name])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.14 * (high - low))
    # Leave room for the captions, but show no tick above 100 %.
    axes.set_yticks([tick for tick in axes.get_yticks()[1:-1] if tick <= 100])
    axes.set_xlim(0.5, longest + 0.5)
    _thaws(axes, comparison, longest)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    a, b = (run.recipe["validate_on"] for run in runs.values())
    title = "accuracy after each epoch (%)"
    title = f"{a} {title}" if a == b else f"{title}: A on {a}, B on {b}"
    axes.set_title(title, loc="left", fontsize=11)
    _bare(axes, grid="y")


def _thaws(axes: Axes, comparison: Comparison, longest: float) -> None:
    """Mark each run's thaw, with one line if both coincide; captions have a row each."""
    thaws: dict[float, list[str]] = {}
    for name, run in comparison.runs.items():
        first = sum(row.phase == 0 for row in run.history)
        if 0 < first < len(run.history):
            epoch = thawed_at([row.epoch for row in run.history], first)
            thaws.setdefault(epoch, []).append(name)
    for line, (epoch, names) in enumerate(thaws.items()):
        together = len(names) == 2
        look = {"color": "black"} if together else {"color": LOOKS[names[0]]["color"]}
        axes.axvline(epoch, linewidth=1.3, linestyle=":", **look)
        if together:
            axes.axvspan(epoch, longest + 0.5, color="#f4ead8", zorder=0)
        side = 1 if epoch < 0.65 * longest else -1
        caption = axes.annotate(
            "thawed: fine-tuning" if together else f"{names[0]} thawed",
            (epoch, 0.985 - 0.055 * line),
            xycoords=axes.get_xaxis_transform(),
            xytext=(6 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="top",
            **look,
        )
        if not together:  # the other run's curve may pass behind it
            caption.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})


def _accuracies(axes: Axes, comparison: Comparison) -> None:
    for y, (name, run) in zip((1, 0), comparison.runs.items(), strict=True):
        accuracy = run.result.scores.accuracy
        ends = interval(accuracy, comparison.pairs.images)
        _dot(axes, y, accuracy, ends, name, f"{100 * accuracy:.2f} %")
    axes.set_yticks([1, 0], ["A", "B"], fontweight="bold")
    axes.set_ylim(-0.55, 1.75)
    axes.set_title(
        f"{comparison.a.part} accuracy with its 95 % interval (%)", loc="left", fontsize=11
    )
    _bare(axes, grid="x")


def _difference(axes: Axes, comparison: Comparison) -> None:
    ends = difference_interval(comparison.pairs)
    gap = comparison.pairs.difference
    _dot(axes, 0, gap, ends, None, f"{100 * gap:+.2f}".replace("-", "\N{MINUS SIGN}"))
    low, high = axes.get_xlim()
    reach = 1.1 * max(abs(low), abs(high))
    axes.set_xlim(-reach, reach)
    axes.axvline(0, color="black", linewidth=1.2)
    axes.set_ylim(-0.6, 0.95)
    axes.set_yticks([])
    axes.set_title("B less A, 95 % interval (points)", loc="left", fontsize=11)
    _bare(axes, grid="x")


def _dot(
    axes: Axes, y: float, share: float, ends: tuple[float, float], name: str | None, caption: str
) -> None:
    look = LOOKS[name] if name else {"color": "black", "marker": "D", "markersize": 5}
    look = {**look, "linestyle": "none"}
    axes.plot([100 * end for end in ends], [y, y], color=look["color"], linewidth=2, zorder=2)
    axes.plot([100 * share], [y], zorder=3, **{**look, "markersize": 7, "markeredgewidth": 1.6})
    axes.annotate(
        caption,
        (100 * share, y),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        fontweight="bold",
        color=look["color"],
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )


def _discordant(axes: Axes, comparison: Comparison) -> None:
    pairs = comparison.pairs
    counts = {"A": pairs.only_a, "B": pairs.only_b}
    for y, (name, count) in zip((1, 0), counts.items(), strict=True):
        look = LOOKS[name]
        axes.barh(
            y,
            count,
            height=0.62,
            color=look["color"] if name == "A" else "white",
            edgecolor=look["color"],
            linewidth=1.6,
            hatch="" if name == "A" else "////",
        )
        axes.annotate(
            f"{count:,}",
            (count, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
            color=look["color"],
        )
    axes.set_yticks([1, 0], ["A", "B"], fontweight="bold")
    axes.set_ylim(-0.5, 1.5)
    axes.set_xlim(0, 1.18 * max(1, *counts.values()))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_title("images that only one gets right", loc="left", fontsize=11)
    axes.set_xlabel(f"both right: {pairs.both:,}    neither: {pairs.neither:,}")
    _bare(axes, grid="x")


def _bare(axes: Axes, grid: Any) -> None:
    axes.grid(axis=grid, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
