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
from pathlib import Path

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

Floats = NDArray[np.float32]
Pass = Callable[[Floats], Floats]


def network(weights: Path) -> Network:
    """Return the network with the shared weights, in evaluation mode."""
    loaded = load_weights(str(weights), NAME)
    found = Network(NAME, 100, SIZE, loaded.padding, loaded.epsilon)
    fill(found, loaded, str(weights))
    return found.eval()


def thawnet(weights: Path, device: torch.device) -> tuple[Pass, str]:
    """Return the trunk as a run computes it, and in which precision."""
    keep_freed_memory()
    machine = decide(device.type, "auto", "no")
    torch.set_num_threads(machine.threads)
    whole = network(weights).to(device)
    run = frozen_function(whole, 0, len(whole.stages) - 1, machine.trunk_dtype, device)
    return _on(device, run), str(machine.trunk_dtype).removeprefix("torch.")


def eager(weights: Path, device: torch.device, reduced: bool) -> tuple[Pass, str]:
    """Return timm's module without its classifier, as a user calls it."""
    net = _headless(weights).to(device)

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            return net(x)  # type: ignore[no-any-return]

    return _on(device, run), "bfloat16" if reduced else "float32"


def onnx(weights: Path) -> tuple[Pass, str]:
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

    def run(images: Floats) -> Floats:
        (features,) = session.run(None, {"images": images})
        return features  # type: ignore[no-any-return]

    return run, "float32"


def _headless(weights: Path) -> nn.Module:
    net = network(weights).net
    net.reset_classifier(0)  # type: ignore[operator]
    return net.eval()


def _on(device: torch.device, run: Callable[[torch.Tensor], torch.Tensor]) -> Pass:
    """Return a function between arrays; the way to a GPU and back is part of a pass."""
    return lambda images: run(torch.from_numpy(images).to(device)).float().cpu().numpy()


def speed(run: Pass, images: Floats, batch: int, seconds: float) -> float:
    """Return images/s over whole batches for at least so many seconds, after some to warm up."""
    starts = range(0, len(images) - batch + 1, batch)
    for start in starts[:4]:
        run(images[start : start + batch])
    done, begun = 0, time.perf_counter()
    while True:
        for start in starts:
            run(images[start : start + batch])
            done += batch
            spent = time.perf_counter() - begun
            if spent >= seconds:
                return done / spent


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
        run, precision = thawnet(chosen.weights, device)
    elif chosen.contender == "onnxruntime":
        run, precision = onnx(chosen.weights)
    else:
        run, precision = eager(chosen.weights, device, chosen.contender == "eager-bf16")
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (IMAGES, 3, SIZE, SIZE)).astype(np.float32)
    np.save(chosen.out, run(images[:COMPARED]))
    speeds = {batch: speed(run, images, batch, chosen.seconds) for batch in chosen.batch}
    best = max(speeds, key=lambda batch: speeds[batch])
    found = {
        "contender": chosen.contender,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "images_per_second": {batch: round(value, 1) for batch, value in speeds.items()},
        "best_batch": best,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
