"""A bundle's network rebuilt in PyTorch, and as a program that needs only PyTorch."""

from __future__ import annotations

import io
import warnings

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from ..bundle.format import WEIGHTS, Description, read_weights
from ..bundle.model import Model
from ..bundle.onnx import IMAGES, PROBES, from_pixels, probe_squares, require_same
from ..core.errors import BundleError, first_line
from ..model.backbone import Network
from ..training.gate import outputs


def rebuild(description: Description) -> Network:
    """Return the network of a bundle as it was trained, float32, on the CPU.

    Raises BundleError when model.safetensors is missing, changed, or of another network.
    """
    content, architecture = read_weights(description), description.architecture
    network = Network(
        architecture.backbone,
        len(description.meaning.classes),
        description.meaning.preprocess.size,
        architecture.padding,
        architecture.epsilon,
    )
    try:
        network.net.load_state_dict(load(content))
    # safetensors raises KeyError for a dtype that torch lacks.
    except (RuntimeError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError(
            f"'{description.path / WEIGHTS}' does not fit {architecture.backbone} "
            f"({first_line(error)}); use the timm that it was trained with, or train again"
        ) from error
    return network.eval()


def to_pt2(description: Description, model: Model) -> tuple[bytes, float]:
    """Return a bundle's network as torch.export.save writes it, and its logits' largest error.

    The program takes squares, (n, crop, crop, 3) uint8, as preprocess.squared cuts them, and
    returns logits, (n, classes) float32; n is free. It runs without timm and thawnet. It is loaded
    again here and compared with `model`, which runs the ONNX model.
    Raises BundleError when the network cannot be exported or its logits differ.
    """
    squares = probe_squares(model.preprocess)
    whole = _Logits(from_pixels(outputs(rebuild(description)), model.preprocess))
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about itself
            program = torch.export.export(
                whole,
                (torch.from_numpy(squares),),
                dynamic_shapes={IMAGES: {0: torch.export.Dim("n", min=1)}},
            )
            torch.export.save(program, file)
            file.seek(0)
            loaded = torch.export.load(file).module()
        with torch.inference_mode():
            logits = [loaded(torch.from_numpy(squares[:count])).numpy() for count in (1, PROBES)]
    except Exception as error:  # any of timm's 1,300 models may raise anything
        raise BundleError(
            f"the network cannot be exported by torch.export ({first_line(error)})"
        ) from error
    reference = model.outputs(squares).logits
    off = max(require_same(each, reference[: len(each)], "pt2") for each in logits)
    return file.getvalue(), off


class _Logits(torch.nn.Module):
    """A module that returns only the first output of another."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.module(images)[0]
        return logits
