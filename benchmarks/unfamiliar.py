"""How well `unfamiliar` separates known classes from ones left out of training, and from digits.

    python benchmarks/unfamiliar.py ../shared/data/cifar100 WEIGHTS.safetensors build/unfamiliar

Trains `quick` on 80 classes of CIFAR-100 (every fifth is left out) in WORK/run, or uses the
finished run there. Then it scores the test images of the 80 classes, those of the 20, and
scikit-learn's digits. Prints a JSON line: the areas under the ROC curves, and the shares marked as
unfamiliar.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import thawnet
from thawnet.bundle.model import Model
from thawnet.data.items import Raw, Source
from thawnet.data.sources.open import open_source

EVERY = 5  # one class in so many is left out


def write_table(source: Source, work: Path) -> Path:
    """Write the images of the known classes as files, and the CSV that `train` takes."""
    table = work / "known.csv"
    rows = []
    for part in ("train", "test"):
        items = source.open_part(part)
        (work / part).mkdir(parents=True, exist_ok=True)
        for row in np.flatnonzero(items.labels % EVERY):
            content = items.read(int(row))
            assert isinstance(content, bytes)  # as shards and folders hold them
            name = f"{part}/{row:05d}.png"
            (work / name).write_bytes(content)
            rows.append((name, source.classes[items.labels[row]], part))
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return table


def scores(model: Model, images: Iterable[Raw]) -> NDArray[np.float32]:
    """Return the unfamiliarity of each image, (n,)."""
    return np.array([outputs.unfamiliarity[0] for outputs in model.stream_outputs(images)])


def area(known: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Return the area under the ROC curve: 1 separates all, 0.5 none."""
    truth = np.repeat([0, 1], [len(known), len(others)])
    return round(float(roc_auc_score(truth, np.concatenate([known, others]))), 4)


def main(
    data: tyro.conf.Positional[Path],
    weights: tyro.conf.Positional[Path],
    work: tyro.conf.Positional[Path],
) -> None:
    """Train if necessary, then score. data: folder of CIFAR-100's parquet shards."""
    source, run = open_source("cifar100", data), work / "run"
    if not (run / "result.json").exists():
        thawnet.train(
            thawnet.TrainOptions(
                data=str(write_table(source, work)),
                recipe="quick",
                no_test=True,
                weights=str(weights),
                out=run,
            )
        )
    model = thawnet.load(run)
    assert model.unfamiliar is not None
    test, digits = source.open_part("test"), open_source("digits")
    foreign = test.labels % EVERY == 0
    drawn = [digits.open_part(part) for part in sorted(digits.parts)]
    unfamiliarity = {
        "known": scores(model, map(test.read, np.flatnonzero(~foreign).tolist())),
        "left out": scores(model, map(test.read, np.flatnonzero(foreign).tolist())),
        "digits": scores(model, (items.read(row) for items in drawn for row in range(len(items)))),
    }
    figures = {
        "auroc, classes left out": area(unfamiliarity["known"], unfamiliarity["left out"]),
        "auroc, digits": area(unfamiliarity["known"], unfamiliarity["digits"]),
        "stated false alarms": model.unfamiliar.false_alarms,
        "marked on test": {
            name: round(float((values > model.unfamiliar.above).mean()), 4)
            for name, values in unfamiliarity.items()
        },
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
