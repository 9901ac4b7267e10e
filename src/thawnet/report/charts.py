"""Charts of a report as SVG: the style sheet of the page gives their colours, light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..metrics.calibration import Bin
from ..metrics.result import Validation
from .markup import element, joined, percent

WIDTH, HEIGHT = 440, 270
_LEFT, _TOP, _RIGHT, _BOTTOM = 54, 36, 24, 44
_DOTS = 40  # points of a curve: more would run into each other


@dataclass(frozen=True)
class _Axis:
    """Values from `least` to `most` along a line from pixel `start` to pixel `end`."""

    least: float
    most: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.least) / ((self.most - self.least) or 1.0)
        return self.start + share * (self.end - self.start)


def accuracy_history(history: Sequence[Validation], validated_on: str) -> Markup:
    """Draw the accuracies of every validation, the thaw marked.

    validated_on: 'validation' or 'test'.
    """
    last = next((row for row in reversed(history) if row.kept), history[-1])
    told = (
        f"Accuracy by epoch. On {validated_on} it goes from {percent(history[0].val_accuracy)} "
        f"to {percent(last.val_accuracy)} at epoch {last.epoch:g}."
    )
    most = min(1.0, max(max(row.train_accuracy, row.val_accuracy) for row in history) * 1.1)
    return _history(
        history,
        "Accuracy",
        told,
        most,
        lambda row: (row.train_accuracy, row.val_accuracy),
        lambda value: percent(value, 0),
    )


def loss_history(history: Sequence[Validation], validated_on: str) -> Markup:
    """Draw the losses of every validation, the thaw marked.

    validated_on: 'validation' or 'test'.
    """
    last = next((row for row in reversed(history) if row.kept), history[-1])
    told = (
        f"Cross-entropy in nats by epoch. On {validated_on} it goes from {history[0].val_loss:.2f} "
        f"to {last.val_loss:.2f} at epoch {last.epoch:g}."
    )
    most = max(max(row.train_loss, row.val_loss) for row in history) * 1.05
    return _history(
        history,
        "Loss (nats)",
        told,
        most,
        lambda row: (row.train_loss, row.val_loss),
        lambda value: f"{value:g}",
    )


def _history(
    history: Sequence[Validation],
    title: str,
    description: str,
    most: float,
    values: Callable[[Validation], tuple[float, float]],
    ticks: Callable[[float], str],
) -> Markup:
    epochs = [row.epoch for row in history]
    x = _Axis(min(0.0, *epochs), max(epochs), _LEFT, WIDTH - _RIGHT)
    y = _Axis(0.0, most, HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(y, ticks), _scale(x, "epoch", lambda value: f"{value:g}"), _thaw(history, x)]
    for place, look in enumerate(("training", "held-out")):
        points = [(x(row.epoch), y(values(row)[place])) for row in history]
        line = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
        parts.append(element("polyline", class_=f"curve {look}", points=line))
        if len(history) <= _DOTS:
            dots = [element("circle", cx=cx, cy=cy, r=2.6) for cx, cy in points]
            parts.append(element("g", *dots, class_=f"dots {look}"))
    for row in history:
        if row.kept:
            kept = {"cx": x(row.epoch), "cy": y(values(row)[1])}
            parts.append(element("circle", class_="kept", r=5, **kept))
    return _chart(title, description, *parts)


def _thaw(history: Sequence[Validation], x: _Axis) -> Markup:
    head = sum(row.phase == 0 for row in history)
    if not 0 < head < len(history):
        return Markup("")
    at = x((history[head - 1].epoch + history[head].epoch) / 2)
    # The words of a phase stand beside the line if there is room for them.
    before = element("text", "head alone", class_="said end", x=at - 6, y=_TOP - 16)
    after = element("text", "thawed", class_="said", x=at + 6, y=_TOP - 16)
    return joined(
        element("line", class_="thaw", x1=at, x2=at, y1=_TOP - 28, y2=HEIGHT - _BOTTOM),
        before if at > 200 else "",  # the title stands there
        after if at < WIDTH - 70 else "",
    )


def reliability(bins: Sequence[Bin], title: str) -> Markup:
    """Draw the share of hits over confidence, each dot as large as the number of its images."""
    x = _Axis(0.0, 1.0, _LEFT, WIDTH - _RIGHT)
    y = _Axis(0.0, 1.0, HEIGHT - _BOTTOM, _TOP)
    largest = max((each.images for each in bins), default=1)
    gaps = [
        element(
            "line",
            x1=x(each.confidence),
            x2=x(each.confidence),
            y1=y(each.confidence),
            y2=y(each.accuracy),
        )
        for each in bins
    ]
    dots = [
        element(
            "circle",
            element(
                "title",
                f"said {percent(each.confidence, 0)}, right {percent(each.accuracy, 0)}: "
                f"{each.images:,} images",
            ),
            cx=x(each.confidence),
            cy=y(each.accuracy),
            r=2.5 + 7 * math.sqrt(each.images / largest),
        )
        for each in bins
    ]
    told = (
        f"{title}: the share of right answers for each probability given, beside a diagonal where "
        "both are equal. " + _said(bins)
    )
    return _chart(
        "Right answers",
        told,
        _grid(y, lambda value: percent(value, 0)),
        _scale(x, "probability given", lambda value: percent(value, 0)),
        element("line", class_="ideal", x1=x(0.0), y1=y(0.0), x2=x(1.0), y2=y(1.0)),
        element("g", *gaps, class_="gaps"),
        element("g", *dots, class_="bins"),
    )


def _said(bins: Sequence[Bin]) -> str:
    said = [f"{percent(each.accuracy, 0)} at {percent(each.confidence, 0)}" for each in bins]
    return f"Right: {', '.join(said)}."


def standing(
    accuracy: float,
    interval: tuple[float, float] | None,
    run: tuple[float, float],
    own: bool,
) -> Markup:
    """Draw one accuracy with its interval on an axis from 0 to 100 %, as wide as its place.

    run: the interval of the run, a band through every row. own: whether this row is the run's.
    """
    parts = [element("rect", class_="band", y=0, height="100%", **_ends(run))]
    if interval is not None:
        parts.append(element("rect", class_="interval", y=6, height=16, rx=2, **_ends(interval)))
    parts.append(element("circle", cx=_length(accuracy), cy=14, r=3.5))
    look = "standing own" if own else "standing"
    return element("svg", *parts, class_=look, height=28, width="100%", aria_hidden="true")


def _ends(interval: tuple[float, float]) -> dict[str, str]:
    low, high = interval
    return {"x": _length(low), "width": _length(high - low)}


def bar(share: float, start: float = 0.0) -> Markup:
    """Draw a share of the width of its place, from `start` on: both 0 to 1."""
    drawn = element("rect", x=_length(start), width=_length(share), y=0, height="100%", rx=3)
    track = element("rect", class_="track", width="100%", height="100%", rx=3)
    return element("svg", track, drawn, class_="bar", height=8, width="100%", aria_hidden="true")


def _length(share: float) -> str:
    """Return a share, 0 to 1, as a length in SVG."""
    return f"{100 * share:.2f}%"


def _chart(title: str, description: str, *parts: Markup) -> Markup:
    return element(
        "svg",
        element("text", title, class_="title", x=0, y=_TOP - 16),
        *parts,
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=description,
    )


def _grid(y: _Axis, shown: Callable[[float], str]) -> Markup:
    ticks = _ticks(y.least, y.most)
    lines = [element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y(at), y2=y(at)) for at in ticks]
    words = [element("text", shown(at), x=_LEFT - 7, y=y(at) + 4) for at in ticks]
    return joined(element("g", *lines, class_="grid"), element("g", *words, class_="ticks end"))


def _scale(x: _Axis, title: str, text: Callable[[float], str]) -> Markup:
    ticks = _ticks(x.least, x.most)
    words = [element("text", text(at), x=x(at), y=HEIGHT - _BOTTOM + 18) for at in ticks]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return joined(
        element("g", *words, class_="ticks middle"),
        element("text", title, class_="said middle", x=middle, y=HEIGHT - 6),
    )


def _ticks(least: float, most: float) -> list[float]:
    """Return three to six round values from `least` to `most`."""
    rough = (most - least or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(least / step - 1e-9)
    return [round(number * step, 9) for number in range(first, math.floor(most / step + 1e-9) + 1)]
