"""The pt2 program: it needs PyTorch alone and says what model.onnx says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import thawnet
from support.commands import run_without
from support.runs import TINY
from thawnet.bundle.format import read_description, read_trained_on, write_bundle
from thawnet.core.errors import BundleError
from thawnet.export import pt2
from thawnet.export.pt2 import rebuild, to_pt2

RUN = """
import numpy, torch
program = torch.export.load(sys.argv[1]).module()
squares = torch.from_numpy(numpy.load(sys.argv[2]))
numpy.save(sys.argv[3], program(squares).detach().numpy())
"""


@pytest.mark.slow  # a process that imports torch.export
def test_program_runs_with_pytorch_alone_on_any_number_of_images(
    bundle: Path, tmp_path: Path
) -> None:
    model = thawnet.load(bundle)
    content, off = to_pt2(read_description(bundle), model)
    assert off < 1e-3
    (tmp_path / "model.pt2").write_bytes(content)
    squares = np.random.default_rng(3).integers(0, 256, (7, 40, 40, 3), np.uint8)
    np.save(tmp_path / "squares.npy", squares)
    paths = [tmp_path / name for name in ("model.pt2", "squares.npy", "logits.npy")]
    done = run_without(("timm", "thawnet"), RUN, *paths)
    assert done.returncode == 0, done.stderr
    logits = np.load(tmp_path / "logits.npy")
    assert logits == pytest.approx(model.outputs(squares).logits, rel=1e-3, abs=1e-3)


def test_network_that_is_not_the_onnx_models_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(description: Any) -> Any:
        network = rebuild(description)
        torch.nn.init.zeros_(network.head.weight)
        return network

    monkeypatch.setattr(pt2, "rebuild", other)
    with pytest.raises(BundleError, match="something else once exported to pt2"):
        to_pt2(read_description(bundle), thawnet.load(bundle))


def test_weights_of_another_network_are_refused_in_a_sentence(bundle: Path, tmp_path: Path) -> None:
    description = read_description(bundle)
    tensors = load_file(bundle / "model.safetensors")
    tensors["classifier.weight"] = tensors["classifier.weight"][:2].contiguous()
    write_bundle(
        tmp_path / "other",
        tensors,
        None,
        description.architecture,
        description.meaning,
        read_trained_on(description),
        {},
        "A card\n",
    )
    with pytest.raises(BundleError, match=f"does not fit {TINY}") as caught:
        rebuild(read_description(tmp_path / "other"))
    assert "\n" not in str(caught.value)
