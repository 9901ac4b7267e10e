"""Images per second of one contender through the frozen trunk, to its pooled features.

    python benchmarks/rivals/trunk.py thawnet WEIGHTS.safetensors OUT.npy --batch 256 --seconds 5
    python benchmarks/rivals/trunk.py onnxruntime WEIGHTS.safetensors OUT.npy --batch 16 --seconds 5

MobileNetV2 at 96 px, on the same float32 images in memory for every contender. `thawnet` is what a
run computes from rendered images; `onnxruntime` runs the exported graph; `eager` is timm's module
in plain PyTorch. All compute in float32 on the CPU. Prints images/s and writes the features of the
first images, so that contenders can be compared.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from thawnet.core.memory import keep_freed_memory
from thawnet.data.augment import Augment
from thawnet.data.views import Views
from thawnet.model.backbone import Network
from thawnet.model.weights import fill, load_weights
from thawnet.training.machine import decide
from thawnet.training.trunk.cache import Origin
from thawnet.training.trunk.feeds import LiveFeed

NAME = "mobilenetv2_100"
SIZE = 96
IMAGES = 1024
COMPARED = 64

Floats = NDArray[np.float32]
Pass = Callable[[int, int], Floats]  # first and last (exclusive) image to features (n, 1280)


def network(weights: Path) -> Network:
    """Return the network with the shared weights, in evaluation mode."""
    loaded = load_weights(str(weights), NAME)
    whole = Network(NAME, 100, SIZE, loaded.padding, loaded.epsilon)
    fill(whole, loaded, str(weights))
    return whole.eval()


@dataclass(frozen=True)
class InMemory(Origin):
    """Images that need no rendering: `ready`, (n, 3, SIZE, SIZE)."""

    ready: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def pictures(self, positions: NDArray[np.int64], views: Views) -> torch.Tensor:
        """See Origin; the positions must be consecutive."""
        return self.ready[positions[0] : positions[-1] + 1]


def thawnet(weights: Path, images: Floats) -> Pass:
    """Return the trunk as a run computes it, without the rendering."""
    keep_freed_memory()
    machine = decide("cpu", "float32", "no")
    torch.set_num_threads(machine.threads)
    whole = network(weights)
    origin = InMemory(
        network=whole,
        weights="",
        images=range(len(images)),  # type: ignore[arg-type] # only counted
        spec=None,  # type: ignore[arg-type] # nothing is rendered
        augment=Augment(),
        machine=machine,
        ready=torch.from_numpy(images),
    )
    batch = LiveFeed(origin, len(whole.stages) - 1, 1, 0).epoch(0)
    return lambda start, stop: batch(np.arange(start, stop)).numpy()


def eager(weights: Path, images: Floats) -> Pass:
    """Return timm's module without its classifier, as a user calls it."""
    net = _headless(weights)
    x = torch.from_numpy(images)

    def run(start: int, stop: int) -> Floats:
        with torch.inference_mode():
            return net(x[start:stop]).numpy()

    return run


def onnx(weights: Path, images: Floats) -> Pass:
    """Return ONNX Runtime's session on the exported module."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of this exporter, see bundle/onnx.py
        torch.onnx.export(
            _headless(weights),
            (torch.zeros(1, 3, SIZE, SIZE),),
            file,
            input_names=["images"],
            output_names=["features"],
            dynamic_axes={"images": {0: "n"}, "features": {0: "n"}},
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    return lambda start, stop: session.run(None, {"images": images[start:stop]})[0]


def _headless(weights: Path) -> nn.Module:
    net = network(weights).net
    net.reset_classifier(0)  # type: ignore[operator] # timm's, no stub has it
    return net.eval()


def speed(run: Pass, batch: int, seconds: float) -> float:
    """Return images/s over whole batches for at least `seconds`, after a warm-up."""
    starts = range(0, IMAGES - batch + 1, batch)
    for start in starts[:4]:
        run(start, start + batch)
    begun = time.perf_counter()
    for done, start in enumerate(itertools.cycle(starts), start=1):
        run(start, start + batch)
        spent = time.perf_counter() - begun
        if spent >= seconds:
            return done * batch / spent
    raise AssertionError


CONTENDERS = {"thawnet": thawnet, "onnxruntime": onnx, "eager": eager}


def main() -> None:
    """Measure one contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path, help="where the features are written")
    parser.add_argument("--batch", type=int, nargs="+", required=True, help="one or more to time")
    parser.add_argument("--seconds", type=float, required=True, help="for each of them")
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (IMAGES, 3, SIZE, SIZE)).astype(np.float32)
    run = CONTENDERS[chosen.contender](chosen.weights, images)
    np.save(chosen.out, run(0, COMPARED))
    speeds = {batch: round(speed(run, batch, chosen.seconds), 1) for batch in chosen.batch}
    figures = {
        "contender": chosen.contender,
        "threads": torch.get_num_threads(),
        "images_per_second": speeds,
        "best_batch": max(speeds, key=lambda batch: speeds[batch]),
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
