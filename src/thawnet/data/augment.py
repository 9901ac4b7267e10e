"""How far a training view may go from the image; plain numbers, so that recipes need no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RecipeError


@dataclass(frozen=True)
class Augment:
    """Limits that random views are drawn from."""

    flip: bool = True
    """Mirror half of the views left to right."""
    rotate: float = 0.0
    """Largest rotation in degrees, either way, 0 to 180."""
    shift: float = 0.0
    """Largest shift as a share of the side, either way, 0 to 0.5."""
    zoom: float = 0.0
    """Largest change of scale, either way: 0.2 draws from 1/1.2 to 1.2; 0 to 1."""
    two_steps: bool = False
    """Enlarge first, then rotate at the input size, as Keras's layers do; else in one resample."""

    def __post_init__(self) -> None:
        for name, limit in (("rotate", 180), ("shift", 0.5), ("zoom", 1)):
            if not 0 <= getattr(self, name) <= limit:
                raise RecipeError(f"{name} = {getattr(self, name)!r}: must be 0 to {limit}")
