"""Speed of prediction, compared with decoding alone and the network alone.

    python benchmarks/predicting.py FOLDER --turns 5

Uses the embedded network on the .jpg files below FOLDER. Each turn measures one after another, on
all cores: decoding and reducing alone, the network alone on images in memory, and prediction from
file to answer, as in `thawnet predict`. Prints the seconds of every turn as a JSON line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tyro

import thawnet
from thawnet.bundle.model import BATCH, Model
from thawnet.core.memory import available_cores
from thawnet.image.decode import decode
from thawnet.image.files import read_file
from thawnet.image.preprocess import squared

READY = 2048  # decoded images kept in memory for the network alone, and reused


def on_all_cores(work: Callable[[int], object], count: int) -> float:
    """Return the seconds of work(0), work(BATCH), ... up to a count of images."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(work, range(0, count, BATCH)))
    return time.perf_counter() - begun


def predict(model: Model, images: Sequence[Path | bytes]) -> float:
    """Return the seconds that predicting all images takes."""
    begun = time.perf_counter()
    for _ in model.stream(images):
        pass
    return time.perf_counter() - begun


def main(folder: tyro.conf.Positional[Path], turns: int = 5) -> None:
    """Measure all turns and print them."""
    files = sorted(folder.rglob("*.jpg"))
    model = thawnet.load()
    spec = model.preprocess

    def squares(start: int) -> list[np.ndarray]:
        return [
            squared(decode(read_file(file), spec.side), spec)
            for file in files[start : start + BATCH]
        ]

    ready = np.stack([one for start in range(0, READY, BATCH) for one in squares(start)])

    def network(start: int) -> None:
        start %= len(ready)
        model.outputs(ready[start : start + BATCH])

    seconds = [
        {
            "decode": on_all_cores(squares, len(files)),
            "network": on_all_cores(network, len(files)),
            "predict": predict(model, files),
        }
        for _ in range(turns)
    ]
    print(json.dumps({"images": len(files), "turns": seconds}), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
