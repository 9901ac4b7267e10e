"""A plain timm fine-tuning loop, as timm's documentation teaches it, with a clock in it.

    python benchmarks/rivals/timm_loop.py DATA WEIGHTS.safetensors --steps 60
    python benchmarks/rivals/timm_loop.py DATA WEIGHTS.safetensors --epochs 2

MobileNetV2 on CIFAR-100 at 96 px: create_model, timm's own transforms, a DataLoader with a worker
for each core, AdamW on all layers, float32 and batch 64 unless told otherwise; bfloat16 is autocast
and channels last, timm's own script's --amp and --channels-last. With --steps it times so many
training steps and validation batches and prints what they took; with --epochs it does whole epochs,
printing a line for each. Seconds count from the script's first line.
"""

from __future__ import annotations

import time

BEGUN = time.perf_counter()

import argparse
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn
from torch.utils.data import DataLoader, Dataset

SIZE = 96
RATE = 1e-3
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Cifar(Dataset[tuple[torch.Tensor, int]]):
    """One part of CIFAR-100, decoded when an image is asked for, as from a folder of files."""

    def __init__(self, data: Path, part: str, transform: Any) -> None:
        tables = [pq.read_table(path) for path in sorted(data.glob(f"{part}-*.parquet"))]
        self.images = [cell["bytes"] for table in tables for cell in table["img"].to_pylist()]
        self.labels = np.concatenate([table["fine_label"].to_numpy() for table in tables]).tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        with Image.open(io.BytesIO(self.images[row])) as image:
            return self.transform(image.convert("RGB")), self.labels[row]


def build(weights: Path) -> nn.Module:
    """Return the pretrained model with a new classifier."""
    with safe_open(weights, framework="pt") as file:
        facts = file.metadata() or {}
    options: dict[str, Any] = {"pad_type": facts["pad_type"]} if "pad_type" in facts else {}
    if "bn_eps" in facts:
        options["bn_eps"] = float(facts["bn_eps"])
    overlay: dict[str, Any] = {"file": str(weights), "input_size": (3, SIZE, SIZE)}
    for name in ("mean", "std"):
        if name in facts:
            overlay[name] = tuple(map(float, facts[name].split(",")))
    model: nn.Module = timm.create_model(
        "mobilenetv2_100",
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        num_classes=100,
        **options,
    )
    return model


@dataclass(frozen=True)
class Place:
    """Where the model computes, and whether in bfloat16."""

    device: torch.device
    reduced: bool

    def put(self, images: torch.Tensor) -> torch.Tensor:
        """Send a batch of images, (n, 3, SIZE, SIZE)."""
        layout = torch.channels_last if self.reduced else torch.contiguous_format
        return images.to(self.device, non_blocking=True).contiguous(memory_format=layout)

    def autocast(self) -> torch.autocast:
        """Return the context in which the model runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.reduced)


def train_steps(
    model: nn.Module,
    loader: DataLoader[tuple[torch.Tensor, int]],
    optimizer: torch.optim.Optimizer,
    place: Place,
    most: int | None = None,
) -> list[float]:
    """Train for an epoch, or so many steps of it; return the seconds of every step."""
    model.train()
    ends = [time.perf_counter()]
    for number, (images, labels) in enumerate(loader, start=1):
        with place.autocast():
            loss = nn.functional.cross_entropy(model(place.put(images)), labels.to(place.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU, as every loop that prints its loss does
        ends.append(time.perf_counter())
        if number == most:
            break
    return np.diff(ends).tolist()


def validate(
    model: nn.Module,
    loader: DataLoader[tuple[torch.Tensor, int]],
    place: Place,
    most: int | None = None,
) -> tuple[float, list[float]]:
    """Return the accuracy on a part, or on so many batches of it, and the seconds of each batch."""
    model.eval()
    hits = seen = 0
    ends = [time.perf_counter()]
    with torch.inference_mode(), place.autocast():
        for number, (images, labels) in enumerate(loader, start=1):
            hits += int((model(place.put(images)).argmax(1).cpu() == labels).sum())
            seen += len(labels)
            ends.append(time.perf_counter())
            if number == most:
                break
    return hits / seen, np.diff(ends).tolist()


def clocked(spent: list[float], warm: int) -> dict[str, Any]:
    """Return the seconds of the first batch, which starts the workers, and of those timed."""
    return {"first": round(spent[0], 4), "rest": [round(each, 5) for each in spent[warm:]]}


def main() -> None:
    """Load, build, and time some steps or do whole epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of CIFAR-100's parquet shards")
    parser.add_argument("weights", type=Path, help="the network in timm's names, .safetensors")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--steps", type=int, help="time so many steps")
    mode.add_argument("--epochs", type=int, help="do so many whole epochs")
    parser.add_argument("--warm", type=int, default=10, help="steps that are not timed")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    chosen = parser.parse_args()
    imported = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    place = Place(device, chosen.precision == "bfloat16")
    model = build(chosen.weights).to(device)
    if place.reduced:
        model = model.to(memory_format=torch.channels_last)
    config = timm.data.resolve_model_data_config(model)
    parts = {
        part: Cifar(
            chosen.data, part, timm.data.create_transform(**config, is_training=part == "train")
        )
        for part in ("train", "test")
    }
    loaders = {
        part: DataLoader(
            images,
            chosen.batch,
            shuffle=part == "train",
            num_workers=CORES,
            pin_memory=device.type == "cuda",
        )
        for part, images in parts.items()
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    built = time.perf_counter()
    if chosen.epochs:
        for epoch in range(1, chosen.epochs + 1):
            train_steps(model, loaders["train"], optimizer, place)
            accuracy, _ = validate(model, loaders["test"], place)
            at = round(time.perf_counter() - BEGUN, 2)
            line = {"epoch": epoch, "phase": 0, "at": at, "val_accuracy": round(accuracy, 5)}
            print(json.dumps(line), flush=True)
        return
    count = chosen.warm + chosen.steps
    training = train_steps(model, loaders["train"], optimizer, place, count)
    _, validating = validate(model, loaders["test"], place, count)
    found = {
        "start": round(imported - BEGUN, 3),
        "data and model": round(built - imported, 3),
        "images": len(parts["train"]),
        "held_out": len(parts["test"]),
        "batch": chosen.batch,
        "warm": chosen.warm,
        "train": clocked(training, chosen.warm),
        "validate": clocked(validating, chosen.warm),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
