"""A plain timm fine-tuning loop, as in timm's documentation, timed.

    python benchmarks/rivals/timm_loop.py DATA WEIGHTS.safetensors --steps 60

MobileNetV2 on CIFAR-100 at 96 px: create_model, timm's own transforms, a DataLoader with one worker
per core, AdamW on all layers; by default float32 and batch 64. bfloat16 means autocast and channels
last, like --amp and --channels-last of timm's script. Prints the seconds of --steps steps.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from timm_options import timm_options
from torch import nn
from torch.utils.data import DataLoader, Dataset

SIZE = 96
RATE = 1e-3
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Cifar(Dataset[tuple[torch.Tensor, int]]):
    """CIFAR-100's training part, decoded on access, as from a folder of files."""

    def __init__(self, data: Path, transform: Any) -> None:
        tables = [pq.read_table(path) for path in sorted(data.glob("train-*.parquet"))]
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
    options = timm_options(weights)
    options["pretrained_cfg_overlay"]["input_size"] = (3, SIZE, SIZE)
    model: nn.Module = timm.create_model(
        "mobilenetv2_100",
        pretrained=True,
        num_classes=100,
        **options,
    )
    return model


def main() -> None:
    """Load, build, and time some steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of CIFAR-100's parquet shards")
    parser.add_argument("weights", type=Path, help="the network in timm's names, .safetensors")
    parser.add_argument("--steps", type=int, required=True, help="steps that are timed")
    parser.add_argument("--warm", type=int, default=10, help="steps before them")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    chosen = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reduced = chosen.precision == "bfloat16"
    layout = torch.channels_last if reduced else torch.contiguous_format
    model = build(chosen.weights).to(device, memory_format=layout).train()
    config = timm.data.resolve_model_data_config(model)
    loader = DataLoader(
        Cifar(chosen.data, timm.data.create_transform(**config, is_training=True)),
        chosen.batch,
        shuffle=True,
        num_workers=CORES,
        pin_memory=device.type == "cuda",
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    ends = [time.perf_counter()]
    for images, labels in itertools.islice(loader, chosen.warm + chosen.steps):
        x = images.to(device, non_blocking=True).contiguous(memory_format=layout)
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            loss = nn.functional.cross_entropy(model(x), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU, as every loop that prints its loss does
        ends.append(time.perf_counter())
    spent = np.diff(ends).round(5).tolist()
    seconds = {"first": spent[0], "rest": spent[chosen.warm :]}  # the first starts the workers
    print(json.dumps({"batch": chosen.batch, "warm": chosen.warm, "train": seconds}), flush=True)


if __name__ == "__main__":
    main()
