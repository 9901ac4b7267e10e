"""How well `unfamiliar` tells classes that were left out of training, and digits, from the known.

    python benchmarks/unfamiliar.py ../shared/data/cifar100 WEIGHTS.safetensors build/unfamiliar

Trains `quick` on 80 classes of CIFAR-100, every fifth left out, in WORK/run, or takes the finished
run that is there. Then it scores the test images of the 80, those of the 20, and scikit-learn's
digits, and prints a JSON line: the areas under the ROC curves, and the shares that are marked.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import thawnet
from thawnet.bundle.model import Model
from thawnet.data.items import Items, Raw, Source
from thawnet.data.sources.open import open_source

EVERY = 5  # of which one class is left out


def left_out(items: Items) -> NDArray[np.bool_]:
    """Return which images are of a class that is left out, (n,)."""
    return items.labels % EVERY == 0


def write_table(source: Source, work: Path) -> Path:
    """Write the images of the known classes as files, and the CSV that `train` takes."""
    table = work / "known.csv"
    if table.exists():
        return table
    rows = []
    for part in ("train", "test"):
        items = source.open_part(part)
        (work / part).mkdir(parents=True, exist_ok=True)
        for row in np.flatnonzero(~left_out(items)):
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
    found = []
    for each in model.stream_outputs(images):
        assert not isinstance(each, Exception)
        assert each.unfamiliarity is not None
        found.append(each.unfamiliarity[0])
    return np.array(found)


def area(known: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Return the area under the ROC curve, at which 1 tells all apart and 0.5 none."""
    truth = np.repeat([0, 1], [len(known), len(others)])
    return float(roc_auc_score(truth, np.concatenate([known, others])))


def main() -> None:
    """Train if need be, and score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of CIFAR-100's parquet shards")
    parser.add_argument("weights", type=Path)
    parser.add_argument("work", type=Path)
    chosen = parser.parse_args()
    source, run = open_source("cifar100", chosen.data), chosen.work / "run"
    if not (run / "result.json").exists():
        words = ("train", str(write_table(source, chosen.work)), "--recipe", "quick", "--no-test")
        given = ("--weights", str(chosen.weights), "--out", str(run))
        subprocess.run([sys.executable, "-m", "thawnet", *words, *given], check=True)
    model = thawnet.load(run)
    assert model.unfamiliar is not None
    test = source.open_part("test")
    foreign = left_out(test)
    known, others = (
        scores(model, (test.read(int(row)) for row in np.flatnonzero(which)))
        for which in (~foreign, foreign)
    )
    drawn = open_source("digits")
    parts = [drawn.open_part(part) for part in sorted(drawn.parts)]
    digits = scores(model, (items.read(row) for items in parts for row in range(len(items))))
    marked = {
        name: round(float((found > model.unfamiliar.above).mean()), 4)
        for name, found in (("known", known), ("left out", others), ("digits", digits))
    }
    found = {
        "auroc, classes left out": round(area(known, others), 4),
        "auroc, digits": round(area(known, digits), 4),
        "stated false alarms": model.unfamiliar.false_alarms,
        "marked on test": marked,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
