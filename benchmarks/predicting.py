"""Images a second of prediction beside its two halves alone: decoding, and the network.

    python benchmarks/predicting.py FOLDER --turns 5

With the embedded network on the images below FOLDER. Each turn does, one after another, with all
cores: decoding and reducing alone, the network alone on squares that are ready, and prediction from
file to answer as `thawnet predict` does it. Prints the seconds of every turn as a JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import thawnet
from thawnet.bundle.model import BATCH, Model
from thawnet.core.memory import available_cores
from thawnet.image.decode import decode, read_file
from thawnet.image.preprocess import squared

READY = 2048  # squares that are held for the network alone, and used again and again


def spread(work: Callable[[int], object], count: int) -> float:
    """Return the seconds of work(0), work(1), ... on all cores, eight at a time."""

    def some(start: int) -> None:
        for number in range(start, min(start + BATCH, count)):
            work(number)

    begun = time.perf_counter()
    with ThreadPoolExecutor(available_cores()) as pool:
        exhausted(pool.map(some, range(0, count, BATCH)))
    return time.perf_counter() - begun


def exhausted(found: Iterable[object]) -> None:
    """Go through to the end."""
    for _ in found:
        pass


def main() -> None:
    """Measure turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    chosen = parser.parse_args()
    files = sorted(chosen.folder.rglob("*.jpg"))
    model: Model = thawnet.load()
    spec = model.preprocess

    def square(number: int) -> NDArray[np.uint8]:
        return squared(decode(read_file(files[number]), spec.side), spec)

    ready = np.stack([square(number) for number in range(min(READY, len(files)))])

    def network(number: int) -> None:
        if number % BATCH == 0:
            start = number % len(ready)
            model.outputs(ready[start : start + BATCH])

    turns = []
    for _ in range(chosen.turns):
        decoding = spread(square, len(files))
        computing = spread(network, len(files))
        begun = time.perf_counter()
        exhausted(model.stream(files))
        whole = time.perf_counter() - begun
        turns.append({"decode": decoding, "network": computing, "predict": whole})
    print(json.dumps({"images": len(files), "turns": turns}), flush=True)


if __name__ == "__main__":
    main()
