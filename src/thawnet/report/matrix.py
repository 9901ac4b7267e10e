"""A confusion matrix as SVG, to be read at five classes and at a hundred."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from rich.cells import cell_len

from .content import Confusion
from .markup import element, percent, shortened

MOST = 100  # classes drawn
COUNTED = 20  # classes up to which the cells hold their counts
STEPS = 8  # of colour
FULL = 0.1  # of a class: that few mistakes never look like many
_FEW = 8
_LONGEST = 22  # letters of a name
_LETTER = 0.56  # of a letter's height: its mean width


def largest(confusion: Confusion) -> Confusion:
    """Return the MOST classes with the most mistakes, their names short."""
    counts, images = confusion.counts, confusion.images
    # Stable, so that classes with equally many mistakes are kept in their order.
    kept = np.sort(np.argsort(counts.diagonal() - images, kind="stable")[:MOST])
    names = [shortened(confusion.names[place], _LONGEST) for place in kept]
    return Confusion(names, counts[np.ix_(kept, kept)], images[kept])


def matrix(drawn: Confusion) -> Markup:
    """Draw a confusion matrix: a row for each class, a column for each answer.

    A cell's colour is by the square root of its share of the row, in STEPS steps, so that single
    mistakes are seen and many stand out; the largest share off the diagonal, but no less than FULL,
    has all of it. Cells without images are left out.
    """
    count = len(drawn.names)
    cell = 9.7 if count > 60 else min(46.0, max(14.0, 620.0 / count))
    size = 9.0 if cell < 14 else min(13.0, 0.62 * cell + 1.5)
    margin = round(max(map(cell_len, drawn.names)) * size * _LETTER + 10)
    side = margin + count * cell + 1
    placed = f"translate({margin} {margin}) scale({cell:g})"
    return element(
        "svg",
        element(
            "desc",
            "Rows are classes, columns what their images are called. "
            "The pairs with the most images are listed below, all classes in the table after it.",
        ),
        _rules(count, margin, cell),
        element("g", *_cells(drawn), class_="cells", transform=placed),
        _counts(drawn, margin, cell) if count <= COUNTED else "",
        _names(drawn.names, margin, cell, size),
        class_=f"matrix {_size(count)}",
        viewBox=f"0 0 {side:.0f} {side:.0f}",
        width=f"{side:.0f}",
        height=f"{side:.0f}",
        role="img",
        aria_label=f"Confusion matrix of {count} classes",
    )


def _size(count: int) -> str:
    """Return a word for how much a matrix may shrink on a phone and still be read."""
    return "few" if count <= _FEW else "some" if count <= COUNTED else "many"


def legend(drawn: Confusion) -> Markup:
    """Return a line that says what the colours of `matrix` mean."""
    _, full = _roots(drawn)
    steps = range(1, STEPS + 1)
    cells = [element("path", class_=f"miss s{n}", d=f"M{12 * n - 12} 0h12v12h-12z") for n in steps]
    hit = element("path", class_=f"hit s{STEPS}", d="M0 0h12v12h-12z")
    look = {"class_": "matrix", "height": 12, "aria_hidden": "true"}
    return element(
        "p",
        element("span", element("svg", hit, width=12, **look), "right"),
        element("span", element("svg", *cells, width=12 * STEPS, **look), _told(full)),
        class_="legend",
    )


def _told(full: float) -> str:
    middle, most = ((full * share) ** 2 for share in (0.5, 1.0))
    return f"mistaken: {percent(middle)} of a class in the middle, {percent(most)} at the end"


def _roots(drawn: Confusion) -> tuple[NDArray[np.float64], float]:
    """Return square roots of the shares of rows, and which of them has all of the colour."""
    roots = np.sqrt(drawn.counts / np.maximum(drawn.images, 1)[:, None])
    wrong = roots * ~np.eye(len(roots), dtype=bool)
    return roots, float(wrong.max(initial=math.sqrt(FULL)))


def _step(share: float) -> int:
    """Return the step of colour, 1 to STEPS, of a share of the full one, over 0 and up to 1."""
    return math.ceil(share * STEPS - 1e-9)


def _cells(drawn: Confusion) -> list[Markup]:
    names, counts = drawn.names, drawn.counts
    roots, full = _roots(drawn)
    groups: dict[tuple[str, int], list[Markup]] = defaultdict(list)
    for row, column in np.argwhere(counts > 0).tolist():
        hit = row == column
        share = float(roots[row, column]) / (1.0 if hit else full)
        words = "right" if hit else f"called {names[column]}"
        title = f"{names[row]} {words}: {counts[row, column]:,} of {drawn.images[row]:,}"
        groups["hit" if hit else "miss", _step(share)].append(
            element("path", element("title", title), d=f"M{column} {row}h1v1h-1z")
        )
    return [
        element("g", *cells, class_=f"{kind} s{step}")
        for (kind, step), cells in sorted(groups.items())
    ]


def _counts(drawn: Confusion, margin: float, cell: float) -> Markup:
    counts = drawn.counts
    roots, full = _roots(drawn)
    words = []
    for row, column in np.argwhere(counts > 0).tolist():
        step = _step(float(roots[row, column]) / full)
        words.append(
            element(
                "text",
                f"{counts[row, column]:,}",
                x=margin + (column + 0.5) * cell,
                y=margin + (row + 0.5) * cell + 4,
                class_=f"s{step}" if row != column else None,
            )
        )
    size = min(13.0, 1.5 * cell / max(3, len(f"{counts.max():,}")))
    return element("g", *words, class_="counts", font_size=size)


def _names(names: list[str], margin: float, cell: float, size: float) -> Markup:
    rows, columns = [], []
    for place, name in enumerate(names):
        middle = margin + (place + 0.5) * cell + size * 0.34
        rows.append(element("text", name, x=margin - 5, y=middle))
        # Turned about the foot of the column: x runs upwards.
        columns.append(
            element("text", name, transform=f"translate({middle:.1f} {margin - 5})rotate(-90)")
        )
    return element(
        "g",
        element("g", *rows, class_="rows"),
        element("g", *columns, class_="columns"),
        class_="names",
        font_size=size,
    )


def _rules(count: int, margin: float, cell: float) -> Markup:
    """Draw a line every tenth class, or between all of few, to be followed by the eye."""
    every = 10 if count > COUNTED else 1
    end = margin + count * cell
    lines = []
    for place in [*range(0, count, every), count]:
        at = margin + place * cell
        lines.append(f"M{margin} {at:.1f}H{end:.1f}M{at:.1f} {margin}V{end:.1f}")
    return element("path", d="".join(lines), class_="rules")
