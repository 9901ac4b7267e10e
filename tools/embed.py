"""Make the network of a run the one that ships with the package.

    python tools/embed.py RUN

Writes src/thawnet/embedded/cifar100_mobilenetv2_100.safetensors (float16) and its model card from
the run's bundle and result.json. `make demo` and `--weights bundled` start from it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from thawnet.files import write_atomic, write_text

TARGET = Path(__file__).resolve().parents[1] / "src" / "thawnet" / "embedded"
FILE = "cifar100_mobilenetv2_100.safetensors"

CARD = """# The embedded network

`{file}`: MobileNetV2 1.0 (Sandler et al. 2018) at {size} px for the 100 classes of
CIFAR-100, in timm's names, float16. `thawnet train DATA --weights bundled` starts from it, and
`thawnet train digits` does so by itself.

| | |
|---|---|
| test accuracy | {accuracy:.2f} % (95 % interval {low:.2f}-{high:.2f}, {images:,} images) |
| top-5 | {top_5:.2f} % |
| data | CIFAR-100 (Krizhevsky 2009): 50,000 training images less {validation:,} for validation |
| recipe | `{recipe}`, seed {seed}; the whole recipe is in the file's metadata |
| command | `{command}` |
| starting weights | {origin} |
| licence | Apache-2.0, as its starting weights; see NOTICE |

The accuracy was measured in float32, before rounding to float16. 10 test images of CIFAR-100 also
stand in its training part (6 of them under another label): that is the data set itself.
"""


def main(run: Path) -> None:
    """Write the network and its card."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    model = json.loads((run / "bundle" / "model.json").read_text(encoding="utf-8"))
    with safe_open(run / "bundle" / "model.safetensors", framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {
            name: file.get_tensor(name).to(torch.float16)
            for name in file.keys()  # noqa: SIM118 - not a dict
            if not name.endswith("num_batches_tracked")
        }
    metadata["classes"] = json.dumps(model["classes"])
    metadata["recipe"] = json.dumps(model["recipe"])
    write_atomic(TARGET / FILE, lambda file: file.write(save(tensors, metadata=metadata)))
    test = result["metrics"]["test"]
    card = CARD.format(
        file=FILE,
        size=model["preprocess"]["size"],
        accuracy=100 * test["accuracy"],
        low=100 * test["interval_95"][0],
        high=100 * test["interval_95"][1],
        images=test["images"],
        top_5=100 * test["top_5"],
        validation=result["metrics"]["validation"]["images"],
        recipe=model["recipe"]["name"],
        seed=result["seed"],
        command=result["command"].split(" --out ")[0],
        origin=result["weights"]["origin"],
    )
    write_text(TARGET / "README.md", card)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
