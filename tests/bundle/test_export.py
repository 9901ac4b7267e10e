"""Export: what ONNX can not say, or says wrongly, is found out before anybody predicts with it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thawnet.bundle.export import to_onnx
from thawnet.bundle.format import Meaning
from thawnet.errors import BundleError
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
    ("network", "told"),
    [
        (BatchOfTwo(), "computes something else once exported"),
        (Unspeakable(), "can not be exported to ONNX"),
    ],
)
def test_network_that_would_predict_wrongly_is_refused(network: nn.Module, told: str) -> None:
    with pytest.raises(BundleError, match=told) as caught:
        to_onnx({"logits": network}, Meaning(tuple("abc"), SPEC))
    assert "\n" not in str(caught.value)
