"""Make a run's network the one that ships with the package.

    python tools/embed.py RUN --data-dir ../shared/data/cifar100

Writes src/thawnet/embedded/cifar100/, the run's bundle with its weights in float16. `thawnet
predict` uses it if no model is named; `make demo` and `--weights bundled` start from it. First, the
logits of ONNX Runtime are compared with those of torch, from the same rounded weights, on the run's
validation images.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from thawnet import embedded
from thawnet.bundle.card import model_card
from thawnet.bundle.format import (
    Description,
    read_description,
    read_onnx,
    read_trained_on,
    write_bundle,
)
from thawnet.bundle.onnx import HALVED_FROM, IMAGES, LOGITS, UNFAMILIARITY, from_pixels, halved
from thawnet.data.shares import Shares
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange, divide
from thawnet.export.pt2 import rebuild
from thawnet.image.decode import decode
from thawnet.image.preprocess import squared
from thawnet.metrics.result import read_result
from thawnet.model.backbone import Network
from thawnet.training.gate import GATE_AGREEMENT, GATE_BATCH, Agreement, agreement, outputs

NOTE = """
## Rounded

Weights are stored in float16 and computed with in float32. The figures above are of the network
before that.
"""


def main(run: Path, data_dir: Path) -> None:
    """Compare the rounded network and write the bundle."""
    description = read_description(run)
    network = rebuild(description)
    content = halved(read_onnx(description))
    agreed = compare(description, network, content, val_squares(description, data_dir))
    print(agreed)
    if agreed.decided_top_1 < GATE_AGREEMENT:
        raise SystemExit("rounded, the network names other classes: nothing was written")
    # Do not publish where the run was written.
    result = read_result(run)
    result = replace(result, command=result.command.split(" --out ")[0])
    names = ("source", "license", "recipe", "metrics", "data", "starting_weights")
    facts = {name: description.facts[name] for name in names}
    shutil.rmtree(embedded.BUNDLE, ignore_errors=True)
    write_bundle(
        embedded.BUNDLE,
        {
            name: value.half() if value.is_floating_point() else value
            for name, value in network.net.state_dict().items()
        },
        content,
        description.architecture,
        description.meaning,
        read_trained_on(description),
        facts | {"export": asdict(agreed)},
        model_card(
            description.meaning,
            description.architecture.backbone,
            facts["license"],
            facts["recipe"],
            result,
        )
        + NOTE,
    )
    size = sum(file.stat().st_size for file in embedded.BUNDLE.iterdir())
    print(f"{embedded.BUNDLE}: {size / 1e6:.2f} MB")


def val_squares(description: Description, data_dir: Path) -> np.ndarray:
    """Return the run's validation images, cropped to squares, (n, crop, crop, 3)."""
    data, shares = description.facts["data"], Shares(description.facts["recipe"]["split_seed"])
    lists = arrange(open_source(data["name"], data_dir), shares)
    if lists.fingerprint != data["fingerprint"]:
        raise SystemExit("this is not the data that the run learned from")
    _, val = divide(lists.train, lists.val, shares)
    spec = description.meaning.preprocess
    return np.stack([squared(decode(val.read(row), spec.side), spec) for row in range(len(val))])


def compare(
    description: Description, network: Network, content: bytes, squares: np.ndarray
) -> Agreement:
    """Compare logits of ONNX Runtime with those of torch from weights rounded in the same way."""
    meaning = description.meaning
    parts = outputs(network)
    for value in nn.ModuleList(parts.values()).parameters():
        if value.numel() >= HALVED_FROM:
            value.data = value.data.half().float()
    whole = from_pixels(parts, meaning.preprocess)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    logits: dict[str, list[np.ndarray]] = {"torch": [], "onnx": []}
    unfamiliarity = []
    for batch in np.array_split(squares, len(squares) // GATE_BATCH + 1):
        with torch.inference_mode():
            logits["torch"].append(whole(torch.from_numpy(batch))[0].numpy())
        exported, scores = session.run([LOGITS, UNFAMILIARITY], {IMAGES: batch})
        logits["onnx"].append(exported)
        unfamiliarity.append(scores)
    unfamiliar = meaning.unfamiliar
    assert unfamiliar is not None
    share = (np.concatenate(unfamiliarity) > unfamiliar.above).mean()
    print(f"unfamiliar: {100 * share:.2f} % of them, {100 * unfamiliar.false_alarms:g} % before")
    return agreement(*map(np.concatenate, logits.values()), meaning.temperature)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    chosen = parser.parse_args()
    main(chosen.run, chosen.data_dir)
