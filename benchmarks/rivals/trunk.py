"""Images a second through the frozen trunk to its pooled features, by one contender.

    python benchmarks/rivals/trunk.py thawnet WEIGHTS.safetensors OUT.npy --batch 256 --seconds 5
    python benchmarks/rivals/trunk.py onnxruntime WEIGHTS.safetensors OUT.npy --batch 16 --seconds 5

MobileNetV2 at 96 px, the same float32 images in memory for everyone. `thawnet` is what a run does;
`onnxruntime` computes the exported graph in float32, on the CPU; `eager` is timm's module in
PyTorch as it comes, in float32, and `eager-bf16` the same under autocast. Prints images/s and
writes the features of the first images, by which contenders are compared.
"""

from __future__ import annotations

import argparse
import io
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from thawnet.model.backbone import Network, frozen_function
from thawnet.model.weights import fill, load_weights
from thawnet.training.machine import choose_device, decide, keep_freed_memory

NAME = "mobilenetv2_100"
SIZE = 96
IMAGES = 1024
COMPARED = 64
WAITED = 4096  # images after which a device is waited for

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Contender:
    """A way to compute the features.

    load: brings images to where they are computed. run: images there to features there. wait:
    returns when all that was run is done. precision: of activations.
    """

    load: Callable[[Floats], Any]
    run: Callable[[Any], Any]
    wait: Callable[[], None]
    precision: str


def network(weights: Path) -> Network:
    """Return the network with the shared weights, in evaluation mode."""
    loaded = load_weights(str(weights), NAME)
    found = Network(NAME, 100, SIZE, loaded.padding, loaded.epsilon)
    fill(found, loaded, str(weights))
    return found.eval()


def thawnet(weights: Path, device: torch.device) -> Contender:
    """Return the trunk as a run computes it."""
    keep_freed_memory()
    machine = decide(device.type, "auto", "no")
    torch.set_num_threads(machine.threads)
    whole = network(weights).to(device)
    run = frozen_function(whole, 0, len(whole.stages) - 1, machine.trunk_dtype, device)
    return _in_torch(device, run, machine.trunk_dtype)


def eager(weights: Path, device: torch.device, dtype: torch.dtype) -> Contender:
    """Return timm's module without its classifier, as a user calls it."""
    net = _headless(weights).to(device)
    reduced = dtype != torch.float32

    def run(x: torch.Tensor) -> Any:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=reduced):
            return net(x)

    return _in_torch(device, run, dtype)


def onnx(weights: Path) -> Contender:
    """Return ONNX Runtime's session on the exported module."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of this exporter, see bundle/export
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
    return Contender(
        load=lambda images: images,
        run=lambda images: session.run(None, {"images": images})[0],
        wait=lambda: None,
        precision="float32",
    )


def _headless(weights: Path) -> nn.Module:
    net = network(weights).net
    net.reset_classifier(0)  # type: ignore[operator]
    return net.eval()


def _in_torch(
    device: torch.device, run: Callable[[torch.Tensor], Any], dtype: torch.dtype
) -> Contender:
    return Contender(
        load=lambda images: torch.from_numpy(images).to(device),
        run=run,
        wait=torch.cuda.synchronize if device.type == "cuda" else lambda: None,
        precision=str(dtype).removeprefix("torch."),
    )


def speed(contender: Contender, images: Any, batch: int, seconds: float) -> float:
    """Return images/s over whole batches for at least so many seconds, after some to warm up."""
    starts = range(0, len(images) - batch + 1, batch)
    for start in starts[:4]:
        contender.run(images[start : start + batch])
    contender.wait()
    done, begun = 0, time.perf_counter()
    while True:
        for start in starts:
            contender.run(images[start : start + batch])
            done += batch
            if done % WAITED < batch:
                contender.wait()
            if time.perf_counter() - begun >= seconds:
                contender.wait()
                return done / (time.perf_counter() - begun)


def main() -> None:
    """Measure one contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contender", choices=("thawnet", "onnxruntime", "eager", "eager-bf16"))
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path, help="where the features are written")
    parser.add_argument("--batch", type=int, nargs="+", required=True, help="one or more to time")
    parser.add_argument("--seconds", type=float, required=True, help="for each of them")
    chosen = parser.parse_args()
    device = torch.device(choose_device("auto"))
    if chosen.contender == "thawnet":
        contender = thawnet(chosen.weights, device)
    elif chosen.contender == "onnxruntime":
        contender = onnx(chosen.weights)
    else:
        reduced = chosen.contender == "eager-bf16"
        contender = eager(chosen.weights, device, torch.bfloat16 if reduced else torch.float32)
    rng = np.random.default_rng(0)
    drawn = rng.uniform(-1, 1, (IMAGES, 3, SIZE, SIZE)).astype(np.float32)
    images = contender.load(drawn)
    features = contender.run(images[:COMPARED])
    if isinstance(features, torch.Tensor):
        features = features.float().cpu().numpy()
    np.save(chosen.out, features)
    speeds = {batch: speed(contender, images, batch, chosen.seconds) for batch in chosen.batch}
    best = max(speeds, key=lambda batch: speeds[batch])
    found = {
        "contender": chosen.contender,
        "precision": contender.precision,
        "threads": torch.get_num_threads(),
        "images_per_second": {batch: round(value, 1) for batch, value in speeds.items()},
        "best_batch": best,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
