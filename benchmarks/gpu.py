"""The rows measured on a GPU, each in less than nine minutes, a seed each."""

from __future__ import annotations

from functools import partial
from typing import Any

import rows
from rows import Row, race
from trials import ROOT, scratch_folder
from workbench import Bench, Pieces

# Of each recipe, how many seeds are done and about how many minutes one takes.
RECIPES = {"quick": (3, 4), "full": (5, 4), "best": (3, 8), "speed": (5, 3)}
IMAGES = 50_000
LARGE = (64, 256, 1024)
LOOP = ("--batch", "512", "--precision", "bfloat16")  # as full-gpu has them


def train(recipe: str, seed: int, bench: Bench) -> Any:
    """Do a recipe whole, on empty caches."""
    Pieces(f"{recipe}-{seed}", [(f"{recipe}, seed {seed}, empty caches", 5.0)]).next()
    words = ("--recipe", recipe, "--seed", str(seed))
    with scratch_folder(bench.work) as place:
        return {"run": bench.train(words, place / "run", place / "cache")}


def trunk(bench: Bench) -> Any:
    """Alternate processes that pass images through the trunk."""
    batches = bench.sizes.batches if bench.sizes.short else LARGE
    return race(bench, dict.fromkeys(("thawnet", "eager", "eager-bf16"), batches))


def seed(bench: Bench) -> Any:
    """Do 1 + 2 epochs of main.py, from which its 10 + 10 follow."""
    Pieces("seed", [("main.py, 1 + 2 epochs", 4.0)]).next()
    with scratch_folder(bench.work) as place:
        words = ("--epochs", "1", "2", "--compile", bench.compiling)
        program = (str(ROOT / "main.py"),)
        return {"short": bench.train(words, place / "run", place / "cache", program)}


def share(bench: Bench) -> Any:
    """Alternate epochs of `full-gpu` with epochs on one batch that is ready."""
    return rows.share(bench, "full-gpu", IMAGES, ("--fixed",))


def timm(bench: Bench) -> Any:
    """Alternate steps of timm's loop with epochs of `full-gpu`, both of batches of 512."""
    return rows.timm(bench, IMAGES, () if bench.sizes.short else LOOP)


ROWS = (
    *(
        Row(
            f"{recipe}-{number}",
            f"a whole run of `{recipe}`, seed {number}",
            minutes,
            partial(train, recipe, number),
        )
        for recipe, (seeds, minutes) in RECIPES.items()
        for number in range(seeds)
    ),
    Row(
        "share", "an epoch of `full-gpu` beside one on a fixed batch, and a step's floor", 4, share
    ),
    Row("timm", "every layer training: images/s of timm's loop and of `full-gpu`", 8, timm),
    Row("trunk", "the frozen trunk: thawnet and eager PyTorch", 5, trunk),
    Row("seed", "one and two epochs of main.py", 5, seed),
)
