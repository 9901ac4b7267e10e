"""Export: what ONNX can not say, or says wrongly, is found out before anybody predicts with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import thawnet
from thawnet.bundle.export import to_onnx
from thawnet.errors import BundleError
from thawnet.image.preprocess import Preprocess
from thawnet.recipe import TrainOptions
from thawnet.training import outcome, run

SPEC = Preprocess(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class BatchOfTwo(nn.Module):
    """Counts its batch in Python, which tracing takes for a constant."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) * int(images.shape[0])


class Unspeakable(nn.Module):
    """Uses an operator that ONNX has not."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(images[:, :, :3, :3].mean(1)).real


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (BatchOfTwo(), "computes something else once exported"),
        (Unspeakable(), "can not be exported to ONNX"),
    ],
)
def test_network_that_would_predict_wrongly_is_refused(network: nn.Module, told: str) -> None:
    with pytest.raises(BundleError, match=told) as caught:
        to_onnx(network, SPEC, "abc", 1.0)
    assert "\n" not in str(caught.value)


def test_run_whose_network_can_not_be_exported_keeps_its_result(
    photos: Callable[..., Path],
    random_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_arguments: object) -> bytes:
        raise BundleError("no word for it")

    monkeypatch.setattr(outcome, "to_onnx", refuse)
    options = TrainOptions(data=str(photos({"a": 24, "b": 24})), weights=str(random_weights))
    options = dataclasses.replace(options, size=32, epochs=(1, 1), compile="no", recipe="quick")
    found = run.train(options)
    assert found.line.startswith("test accuracy: ")
    assert "no word for it: the bundle holds no model.onnx" in capfd.readouterr().err
    described = json.loads((found.folder / "bundle" / "model.json").read_text())
    assert list(described["sha256"]) == ["model.safetensors"]
    with pytest.raises(BundleError, match=r"holds no model\.onnx"):
        thawnet.load(found.folder)
