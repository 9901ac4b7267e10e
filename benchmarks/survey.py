"""Survey of timm's families: whether the smallest model of each trains here, with random weights.

    python benchmarks/survey.py [--only WORD ...] [--out docs/backbones.md]

Each model is built, split into stages, and trained for three steps from `upper` on the features of
the frozen stages. Its outputs from these features must equal those of the whole network. Then it is
exported to ONNX, whose outputs must equal PyTorch's. --out rewrites the table in a file, between
the lines that begin and end it.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import tyro
from torch.nn.functional import cross_entropy

from thawnet.bundle.onnx import exported
from thawnet.core.errors import ThawnetError, first_line
from thawnet.model.backbone import Network, has_fixed_size
from thawnet.model.thawing import first_layer, thaw, training_mode
from thawnet.model.weights import published_size

SIZE = 128  # px a side, of networks that take any size
BATCH = 3  # images
STEPS = 3
LONGEST = 110  # characters of a reason in the table
BEGIN, END = "<!-- survey -->", "<!-- end of survey -->"


@dataclass(frozen=True)
class Options:
    """The models to try, and where to write the table."""

    only: tuple[str, ...] = ()
    """Try only models whose name contains one of these words; default: all."""
    out: Path | None = None
    """The Markdown file with the table."""


def main(options: Options) -> None:
    """Try the models, print a line for each as it is done, and write the table."""
    warnings.simplefilter("ignore")
    rows: list[str] = []
    for family in timm.list_modules():
        names = [name for name in timm.list_models(module=family) if not name.startswith("test_")]
        if options.only:
            names = [name for name in names if any(word in name for word in options.only)]
        if not names:
            continue
        name = names[0] if len(names) == 1 else min(names, key=parameters_of)
        started = time.perf_counter()
        try:
            result = outcome(name)
        except Exception as error:  # the survey looks for these
            result = f"**fault**: {type(error).__name__}: {first_line(error)}"
        row = f"| {family} | {name} | {result} |"
        rows.append(row)
        print(f"{row} {time.perf_counter() - started:.0f} s", flush=True)
    if options.out is not None:
        before, _, rest = options.out.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        head = "| family | smallest model | with random weights |\n|---|---|---|\n"
        table = head + "\n".join(rows)
        options.out.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def parameters_of(name: str) -> float:
    """Return a model's number of parameters without allocating them; infinity if that fails."""
    try:
        with torch.device("meta"):
            net = timm.create_model(name)
    except Exception:  # a few compute with their parameters while they are built
        return float("inf")
    return float(sum(parameter.numel() for parameter in net.parameters()))


def outcome(name: str) -> str:
    """Try a model and return the result, for the table."""
    size = published_size(name) if has_fixed_size(name) else SIZE
    torch.manual_seed(0)
    try:
        network = Network(name, 3, size)
        network.check()
        layer = first_layer(network, "upper")
    except ThawnetError as error:
        return f"refused: {short(error, name)}"
    split = network.stage_of(layer)
    thaw(network, layer)
    training_mode(network, "train", 0.1)
    upper = network.part(split)
    images = torch.randn(BATCH, 3, size, size)
    with torch.no_grad():
        features = network.part(0, split)(images.clone()) if split else images
    optimiser = torch.optim.AdamW(network.trainable().values(), lr=1e-3)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = cross_entropy(upper(features.clone()), torch.arange(3))
        loss.backward()
        optimiser.step()
    assert torch.isfinite(loss)
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            upper(features.clone()), network(images.clone()), rtol=1e-3, atol=1e-4
        )
    done = f"trains at {size} px, {len(network.stages)} stages, upper: {layer or 'all'}"
    try:
        exported(network.part(0), images, "images", ["logits"])
    except ThawnetError as error:
        return f"{done}; no ONNX ({short(error, name)})"
    return done


def short(error: Exception, name: str) -> str:
    """Return an error's reason without the parts that every line of the table would repeat."""
    reason = first_line(error).removeprefix(f"--backbone '{name}' ").partition("; choose")[0]
    refused = "the network cannot be exported to ONNX ("
    if reason.startswith(refused):
        reason = reason.removeprefix(refused).removesuffix(")")
    return reason if len(reason) <= LONGEST else f"{reason[:LONGEST]}..."


if __name__ == "__main__":
    main(tyro.cli(Options))
