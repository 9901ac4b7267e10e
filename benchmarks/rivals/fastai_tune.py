"""fastai's fine_tune(5), as in its documentation, from weights in a file.

    python benchmarks/rivals/fastai_tune.py DATA mobilenetv2_100 WEIGHTS.safetensors

DATA holds train/ and test/, each with a folder of images for each class. A tenth of train/ is held
back to validate, as in fastai's quick start; its images are squeezed or cropped to 224 px. Prints
the accuracy on test/, and the seconds until it is known.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from fastai.vision.all import ImageDataLoaders, Resize, get_image_files, vision_learner
from timm_options import timm_options

SIZE = 224


def main() -> None:
    """Load, fine-tune, and test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of train/ and test/")
    parser.add_argument("network", help="timm's name")
    parser.add_argument("weights", type=Path, help="the network in timm's names, .safetensors")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    begun = time.monotonic()
    torch.manual_seed(chosen.seed)
    loaders = ImageDataLoaders.from_folder(
        chosen.data / "train", valid_pct=0.1, seed=chosen.seed, item_tfms=Resize(SIZE)
    )
    learner = vision_learner(loaders, chosen.network, **timm_options(chosen.weights))
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(chosen.epochs)
        files = get_image_files(chosen.data / "test")
        outputs, labels = learner.get_preds(dl=loaders.test_dl(files, with_labels=True))
    right = (outputs.argmax(1) == labels).float().mean().item()
    result = {"accuracy": right, "images": len(labels), "seconds": time.monotonic() - begun}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
