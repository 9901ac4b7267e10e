"""Layout of a confusion matrix, legible with five classes and with a hundred."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from rich.cells import cell_len

from .content import ConfusionMatrix
from .markup import shortened

MOST = 100  # classes drawn
COUNTED = 20  # classes; up to this many, cells show their counts
STEPS = 8  # of colour
FULL = 0.1  # share of a class; the colour scale of mistakes never ends below it
_FEW = 8
_LONGEST = 22  # letters of a name
# Widths of letters as shares of their height, in the widest of the common sans-serif fonts.
_WIDTHS = {**dict.fromkeys("MW@%mw", 0.98), **dict.fromkeys("iljtf.,:;|!'()[] ", 0.4)}


class Cell(NamedTuple):
    """The images, at least one, of the row's class predicted as the column's."""

    row: int
    column: int
    images: int
    step: int
    """The colour's step, 1 to STEPS."""

    @property
    def hit(self) -> bool:
        """Whether the prediction is correct."""
        return self.row == self.column

    @property
    def look(self) -> str:
        """The CSS classes of its colour."""
        return f"{'hit' if self.hit else 'miss'} s{self.step}"


class Matrix:
    """Layout of the MOST classes of a confusion matrix with the most mistakes, in pixels.

    A cell's colour, in STEPS steps, follows the square root of its share of the row, so that single
    mistakes are visible and frequent ones stand out. Off the diagonal, the scale ends at the
    largest share, or at FULL if that is larger.
    """

    def __init__(self, confusion: ConfusionMatrix) -> None:
        counts, images = confusion.counts, confusion.images
        # Stable, so that classes with equally many mistakes keep their order.
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
        # How far it may shrink on a phone and stay legible.
        self.look = "few" if number <= _FEW else "some" if self.counted else "many"
        self.cell = 9.7 if number > 60 else min(46.0, max(14.0, 620.0 / number))
        self.font = 9.0 if self.cell < 14 else min(13.0, 0.62 * self.cell + 1.5)
        self.count_font = min(13.0, 1.5 * self.cell / max(3, len(f"{counts.max():,}")))
        self.margin = round(max(map(_width, self.names)) * self.font + 10)
        self.end = self.margin + number * self.cell
        # Grid lines for the eye to follow: every tenth class, or between all if there are few.
        lines = [*range(0, number, 1 if self.counted else 10), number]
        self.rules = [self.margin + line * self.cell for line in lines]


def _width(name: str) -> float:
    """Estimate a name's width as a multiple of its letters' height, erring on the wide side."""
    return sum(
        _WIDTHS.get(letter, 0.76 if letter.isupper() else 0.63 * cell_len(letter))
        for letter in name
    )
