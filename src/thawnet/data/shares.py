"""Shares of the images for training, validation and test, as plain numbers for recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shares:
    """How to split images that do not come in parts."""

    seed: int = 0
    """Seed of the splits."""
    test: float = 0.0
    """Test share. 0 for a tenth, more of small classes, or none if the images are folded."""
    val: float = 0.0
    """Validation share of the others, unless they are folded. 0 as for `test`."""
    folds: int = 5
    """Folds of a small data set: each is validated by a network trained on the others."""
    few: int = 1000
    """Data sets of at most this many images are folded (cross-validated)."""

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> Shares:
        """Return the shares of a recipe, as in recipe.toml; older recipes lack some of them.

        Images are folded only if the head is solved, not trained.
        """
        solved = int(recipe["head"].get("solve_images", 0))
        return cls(
            seed=int(recipe["split_seed"]),
            test=float(recipe.get("test_share", cls.test)),
            val=float(recipe.get("val_share", cls.val)),
            folds=int(recipe.get("folds", cls.folds)),
            few=min(int(recipe.get("few_images", cls.few)), solved),
        )
