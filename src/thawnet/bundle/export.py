"""The network as one ONNX file, from pixels to logits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BundleError, first_line
from ..image.preprocess import Preprocess
from .format import marks

if TYPE_CHECKING:
    import torch
    from torch import nn

OPSET = 17  # ONNX Runtime 1.12 and everything newer reads it
IMAGES = "images"
LOGITS = "logits"
PROBES = 3  # images that the file is tried on; not the number it is traced with


def to_onnx(
    network: nn.Module, preprocess: Preprocess, classes: Sequence[str], temperature: float
) -> bytes:
    """Return an ONNX model of a float32 network on the CPU; the same weights give the same bytes.

    network: normalised images, (n, 3, size, size), to logits, (n, classes).
    The model's input is `images`, (n, crop, crop, 3) uint8, RGB, as preprocess.squared cuts them;
    enlarging and normalising lie inside, so that no caller can get them wrong. Its output is
    `logits`, (n, classes) float32; n is free. Its metadata name the classes, the preprocessing and
    the temperature that logits are to be divided by.
    Raises BundleError as `exported` does.
    """
    import torch

    shape = (PROBES, preprocess.crop, preprocess.crop, 3)
    probe = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    whole = _from_pixels(network, preprocess).eval()
    return exported(whole, probe, (IMAGES, LOGITS), marks(classes, preprocess, temperature))


def exported(
    module: nn.Module,
    probe: torch.Tensor,
    names: tuple[str, str],
    properties: Mapping[str, str] | None = None,
) -> bytes:
    """Return an ONNX model of a float32 module on the CPU, tried on `probe`.

    probe: PROBES inputs; the number of inputs is free in the model. names: of input and output.
    properties: its metadata. Raises BundleError when ONNX has no word for something the module
    does, or says it wrongly.
    """
    import onnx
    import torch

    source, target = names
    file = io.BytesIO()
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this exporter's age; what it bakes in is tried below
            # The older exporter: the newer one needs onnxscript too, takes 3 to 5 s instead of
            # 0.3, and writes the paths of this machine's files into the model.
            torch.onnx.export(
                module,
                (probe[:2],),
                file,  # type: ignore[arg-type] # the older one takes an open file too
                dynamo=False,
                opset_version=OPSET,
                input_names=[source],
                output_names=[target],
                dynamic_axes={source: {0: "n"}, target: {0: "n"}},
            )
            wanted = module(probe).numpy()
        model = onnx.load_model_from_string(file.getvalue())
        onnx.helper.set_model_props(model, dict(properties or {}))
        content = bytes(model.SerializeToString(deterministic=True))
        got = _tried(content, probe.numpy())
    except Exception as error:  # any of timm's 1,300 models may raise anything
        raise BundleError(
            f"the network can not be exported to ONNX ({first_line(error)})"
        ) from error
    if not np.allclose(got, wanted, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(wanted).max())):
        raise BundleError("the network computes something else once exported to ONNX")
    return content


def _from_pixels(network: nn.Module, spec: Preprocess) -> nn.Module:
    """Put the end of the preprocessing in front: the same steps as data/views.py's plain view."""
    import torch
    from torch import nn

    class FromPixels(nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = images.permute(0, 3, 1, 2).float()  # (n, 3, crop, crop), 0..255
            if spec.crop != spec.size:
                side = (spec.size, spec.size)
                x = nn.functional.interpolate(x, size=side, mode="bilinear", align_corners=False)
            return self.network((x / 255 - self.mean) / self.std)  # type: ignore[no-any-return]

    return FromPixels()


def _tried(content: bytes, values: np.ndarray) -> np.ndarray:
    """Return what ONNX Runtime computes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: values})[0])
