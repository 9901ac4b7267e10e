"""Measures of a confusion matrix that can be read at five classes and at a hundred."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from rich.cells import cell_len

from .content import ConfusionMatrix
from .markup import shortened

MOST = 100  # classes drawn
COUNTED = 20  # classes up to which the cells hold their counts
STEPS = 8  # of colour
FULL = 0.1  # of a class: that few mistakes never look like many
_FEW = 8
_LONGEST = 22  # letters of a name
# Widths of letters as shares of their height, of the widest of common fonts without serifs.
_WIDTHS = {**dict.fromkeys("MW@%mw", 0.98), **dict.fromkeys("iljtf.,:;|!'()[] ", 0.4)}


class Cell(NamedTuple):
    """Images of the row's class that are called the column's, at least one."""

    row: int
    column: int
    images: int
    step: int
    """Of colour, 1 to STEPS."""

    @property
    def hit(self) -> bool:
        """Whether they are called what they are."""
        return self.row == self.column

    @property
    def look(self) -> str:
        """The classes of its colour in the style sheet."""
        return f"{'hit' if self.hit else 'miss'} s{self.step}"


class Matrix:
    """The MOST classes of a confusion matrix with the most mistakes, and where they stand.

    A cell's colour is by the square root of its share of the row, in STEPS steps, so that single
    mistakes are seen and many stand out; the largest share off the diagonal, but no less than FULL,
    has all of it. Lengths are in pixels.
    """

    def __init__(self, confusion: ConfusionMatrix) -> None:
        counts, images = confusion.counts, confusion.images
        # Stable, so that classes with equally many mistakes are kept in their order.
        worst = np.sort(np.argsort(counts.diagonal() - images, kind="stable")[:MOST])
        counts, self.images = counts[np.ix_(worst, worst)], images[worst]
        self.names = [shortened(confusion.names[position], _LONGEST) for position in worst]

        roots = np.sqrt(counts / np.maximum(self.images, 1)[:, None])
        wrong = roots * ~np.eye(len(roots), dtype=bool)
        self.full = float(wrong.max(initial=math.sqrt(FULL)))
        steps = np.ceil(np.where(wrong > 0, roots / self.full, roots) * STEPS - 1e-9).astype(int)
        self.cells = [
            Cell(row, column, int(counts[row, column]), int(steps[row, column]))
            for row, column in np.argwhere(counts > 0).tolist()
        ]

        number = len(self.names)
        self.counted = number <= COUNTED
        # How much it may shrink on a phone and still be read.
        self.look = "few" if number <= _FEW else "some" if self.counted else "many"
        self.cell = 9.7 if number > 60 else min(46.0, max(14.0, 620.0 / number))
        self.font = 9.0 if self.cell < 14 else min(13.0, 0.62 * self.cell + 1.5)
        self.count_font = min(13.0, 1.5 * self.cell / max(3, len(f"{counts.max():,}")))
        self.margin = round(max(map(_width, self.names)) * self.font + 10)
        self.end = self.margin + number * self.cell
        # A line every tenth class, or between all of few, for the eye to follow.
        lines = [*range(0, number, 1 if self.counted else 10), number]
        self.rules = [self.margin + line * self.cell for line in lines]


def _width(name: str) -> float:
    """Return the width of a name as a multiple of its letters' height, rather too much."""
    return sum(
        _WIDTHS.get(letter, 0.76 if letter.isupper() else 0.63 * cell_len(letter))
        for letter in name
    )
