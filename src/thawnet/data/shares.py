"""The shares of a data set's images that train, validate and test; plain numbers for recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shares:
    """How images are shared out that do not lie in parts of their own."""

    seed: int = 0
    """Decides which images go where."""
    test: float = 0.0
    """Share that tests; 0 for a tenth, of small classes more, or none where images are folded."""
    val: float = 0.0
    """Share of the others that validates, unless they are folded; 0 as for `test`."""
    folds: int = 5
    """Folds of few images: each is validated by a network that learnt from the others."""
    few: int = 500
    """Up to so many images are folded."""

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> Shares:
        """Return those of a recipe, as in recipe.toml; one of an older thawnet lacks some.

        Only images whose head is solved are folded.
        """
        solved = int(recipe["head"].get("solve_images", 0))
        return cls(
            seed=int(recipe["split_seed"]),
            test=float(recipe.get("test_share", cls.test)),
            val=float(recipe.get("val_share", cls.val)),
            folds=int(recipe.get("folds", cls.folds)),
            few=min(int(recipe.get("few_images", cls.few)), solved),
        )
