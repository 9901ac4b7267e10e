"""The rows measured on a GPU, each in less than nine minutes, a seed each."""

from __future__ import annotations

from functools import partial
from typing import Any

from rows import Row, race
from trials import ROOT, scratch_folder
from workbench import Bench, Pieces

SEEDS = 3
LARGE = (64, 256, 1024)


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


ROWS = (
    *(
        Row(
            f"quick-{number}",
            f"a whole run of `quick`, seed {number}",
            4,
            partial(train, "quick", number),
        )
        for number in range(SEEDS)
    ),
    *(
        Row(
            f"full-{number}",
            f"a whole run of `full`, seed {number}",
            8,
            partial(train, "full", number),
        )
        for number in range(SEEDS)
    ),
    Row("trunk", "the frozen trunk: thawnet and eager PyTorch", 5, trunk),
    Row("seed", "one and two epochs of main.py", 5, seed),
)
