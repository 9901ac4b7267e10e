"""Figures as they were drawn, for tests of what stands in them."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figures_of(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Figure]:
    """Return a list that holds the figures which a module makes from now on."""
    found: list[Figure] = []
    plain: Any = module.Figure

    def make(**options: Any) -> Figure:
        found.append(plain(**options))
        return found[-1]

    monkeypatch.setattr(module, "Figure", make)
    return found


def curves(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """Return x and y of each line, in the order of drawing."""
    return [
        ([*map(float, x)], [*map(float, y)]) for x, y in (each.get_data() for each in axes.lines)
    ]


def words(axes: Axes) -> list[str]:
    """Return what is written in the axes, in the order of drawing."""
    return [each.get_text() for each in axes.texts]
