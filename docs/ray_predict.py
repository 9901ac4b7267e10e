"""Predict the images of a folder with Ray Data: a pool of actors, each of which holds a model.

    python docs/ray_predict.py RUN FOLDER OUT [ACTORS]

Writes parquet files with the columns image, class, probability and error to the folder OUT.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray

import thawnet


class Classifier:
    """An actor: opens the model once, then takes batches of paths."""

    def __init__(self, model: str) -> None:
        self.model = thawnet.load(model, threads=1)  # Ray counts one core for an actor

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Return the most probable class of each image, or why there is none."""
        images = batch["image"].tolist()
        rows: dict[str, list[Any]] = {"image": images, "class": [], "probability": [], "error": []}
        for found in self.model.stream(images, top_k=1):
            good = isinstance(found, thawnet.Prediction)
            rows["class"].append(found.classes[0] if good else "")
            rows["probability"].append(found.probabilities[0] if good else float("nan"))
            rows["error"].append("" if good else str(found))
        return rows


def main(model: str, folder: str, out: str, actors: int = 2) -> None:
    """Predict all images below a folder that every machine of the cluster sees."""
    paths = sorted(str(path) for path in Path(folder).absolute().rglob("*.jpg"))
    done = ray.data.from_items([{"image": path} for path in paths]).map_batches(
        Classifier,
        fn_constructor_args=(str(Path(model).absolute()),),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        batch_size=256,
    )
    done.write_parquet(str(Path(out).absolute()))
    written = ray.data.read_parquet(str(Path(out).absolute()))
    broken = written.filter(lambda row: bool(row["error"])).count()
    print(f"{written.count():,} images, {broken:,} could not be read")


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:5]))
