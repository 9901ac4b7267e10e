"""Limits of random training views, as plain numbers, so that recipes do not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import RecipeError
from ..core.text import shown


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
    crop: float = 1.0
    """Smallest share of the image's area that a view shows, 0.05 to 1 (Szegedy et al. 2015)."""
    randaugment: int = 0
    """RandAugment's colour operations per view, 0 to 4 (Cubuk et al. 2020)."""
    magnitude: float = 9.0
    """Strength of those operations, 0 to 30."""
    erase: float = 0.0
    """Share of the views in which a random rectangle is erased, 0 to 1 (Zhong et al. 2020)."""

    def __post_init__(self) -> None:
        limits = {
            "rotate": (0, 180),
            "shift": (0, 0.5),
            "zoom": (0, 1),
            "crop": (0.05, 1),
            "randaugment": (0, 4),
            "magnitude": (0, 30),
            "erase": (0, 1),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise RecipeError(f"{name} = {shown(value)}: must be {least} to {most}")
