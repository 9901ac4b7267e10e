"""Export: what ONNX cannot say, or says wrongly, is found out before anybody predicts with it."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from thawnet.bundle.meaning import Meaning
from thawnet.bundle.onnx import exported, halved, to_onnx
from thawnet.core.errors import BundleError
from thawnet.image.preprocess import Preprocess

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
    ("network", "message"),
    [
        (BatchOfTwo(), "computes something else once exported"),
        (Unspeakable(), "cannot be exported to ONNX"),
    ],
)
def test_network_that_would_predict_wrongly_is_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        to_onnx({"logits": network}, Meaning(tuple("abc"), SPEC))
    assert "\n" not in str(caught.value)
    assert "feel free" not in str(caught.value)


def linear(scale: float = 1.0) -> tuple[bytes, nn.Linear]:
    torch.manual_seed(0)
    module = nn.Linear(64, 128)
    module.weight.data *= scale
    return exported(module, torch.randn(3, 64), "x", ["y"]), module


def test_halved_network_is_half_as_large_and_computes_with_the_rounded_weights() -> None:
    content, module = linear()
    small = halved(content)
    assert len(small) < 0.55 * len(content)
    module.weight.data = module.weight.data.half().float()
    x = torch.randn(5, 64)
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.numpy()})
    assert y.dtype == np.float32
    with torch.inference_mode():
        assert np.allclose(y, module(x).numpy(), atol=1e-5)


def test_weights_that_float16_cannot_hold_or_that_are_small_stay_as_they_are() -> None:
    content, module = linear(1e6)
    assert halved(content) == content
    content, module = linear()
    assert halved(content, module.weight.numel() + 1) == content
