"""The network as one ONNX file, from pixels to logits."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core import console
from ..core.errors import BundleError, first_line
from ..image.preprocess import Preprocess, enlarging
from .meaning import Meaning
from .padding import fix_padding

if TYPE_CHECKING:
    import torch
    from torch import nn

OPSET = 17  # ONNX Runtime 1.12 and everything newer reads it
IMAGES = "images"
LOGITS = "logits"
FEATURES = "features"
FEATURE_MAP = "feature_map"
UNFAMILIARITY = "unfamiliarity"
MIDDLE = "middle"  # input of the unfamiliarity only, not an output
HALVED_FROM = 256  # values; smaller tensors would gain nothing
PLEA = r"\. Please feel free| ?\[Caused by"  # what torch's exporter appends to its reason
PROBES = 3  # images that an export is tested on; not the number that it is traced with


def to_onnx(
    parts: Mapping[str, nn.Module], meaning: Meaning, unfamiliarity: nn.Module | None = None
) -> bytes:
    """Return an ONNX model of a float32 network on the CPU; the same weights give the same bytes.

    parts: the network in pieces, each named after its output, the last two FEATURES and LOGITS. The
    first takes normalised images, (n, 3, size, size). unfamiliarity: takes the output of the part
    MIDDLE and the logits.
    The model's input is `images`, (n, crop, crop, 3) uint8, RGB, as preprocess.squared cuts them.
    Enlarging and normalising are part of the model, so that no caller can get them wrong. Its
    outputs are float32: `logits`, (n, classes); `features`, (n, d); for most networks
    `feature_map`, (n, channels, h, w); and `unfamiliarity`, (n,), if it is given. n is free. Its
    metadata is meaning.marks.
    Raises BundleError as `exported` does.
    """
    import torch

    whole = from_pixels(parts, meaning.preprocess, unfamiliarity)
    names = [name for name in reversed(list(parts)) if name != MIDDLE]
    names += [UNFAMILIARITY] if unfamiliarity else []
    probe = torch.from_numpy(probe_squares(meaning.preprocess))
    return exported(whole, probe, IMAGES, names, meaning.marks)


def exported(
    module: nn.Module,
    probe: torch.Tensor,
    source: str,
    targets: Sequence[str],
    properties: Mapping[str, str] | None = None,
) -> bytes:
    """Return an ONNX model of a float32 module on the CPU, tested on `probe`.

    probe: PROBES inputs; the model fixes their shape, but not their number. source, targets: names
    of the model's input and outputs; a module with several outputs returns a tuple. properties: the
    model's metadata.
    Raises BundleError when ONNX cannot express the module, or the model's outputs differ.
    """
    import onnx
    import onnxruntime
    import torch

    file = io.BytesIO()
    try:
        with torch.inference_mode(), warnings.catch_warnings(), console.without_stdout():
            warnings.simplefilter("ignore")  # about its age; what it bakes in is tested below
            # The older exporter: the newer one needs onnxscript too, takes 3 to 5 s instead of
            # 0.3, and writes the paths of this machine's files into the model.
            torch.onnx.export(
                module,
                (probe[:2],),
                file,  # type: ignore[arg-type] # the older one takes an open file too
                dynamo=False,
                opset_version=OPSET,
                input_names=[source],
                output_names=list(targets),
                dynamic_axes={name: {0: "n"} for name in (source, *targets)},
            )
            outputs = module(probe)
        model = onnx.load_model_from_string(file.getvalue())
        fix_padding(model, {source: probe[:1].numpy()})
        onnx.helper.set_model_props(model, dict(properties or {}))
        content = bytes(model.SerializeToString(deterministic=True))
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        arrays = session.run(None, {source: probe.numpy()})
    except Exception as error:  # any of timm's 1,300 models may raise anything
        reason = re.split(PLEA, first_line(error))[0]
        raise BundleError(f"the network cannot be exported to ONNX ({reason})") from error
    references = outputs if isinstance(outputs, tuple) else (outputs,)
    for array, reference in zip(arrays, references, strict=True):
        require_same(array, reference.numpy(), "ONNX")
    return content


def halved(content: bytes, smallest: int = HALVED_FROM) -> bytes:
    """Return an ONNX model with its large weights in float16; it still computes in float32.

    Tensors with fewer than `smallest` values, or values that float16 cannot hold, are unchanged.
    Each of the others is followed by a Cast, which ONNX Runtime runs once, when it opens the model.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_model_from_string(content)
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < smallest:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    if not casts:
        return content
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString(deterministic=True))


def probe_squares(spec: Preprocess) -> NDArray[np.uint8]:
    """Return fixed squares to test an exported network on, (PROBES, crop, crop, 3)."""
    shape = (PROBES, spec.crop, spec.crop, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def require_same(logits: NDArray[Any], reference: NDArray[Any], form: str) -> float:
    """Return the largest difference between the outputs of two forms of a network.

    Raises BundleError, naming the new `form`, when any value is off by more than a thousandth of
    itself plus a thousandth of the largest value, or of 1 if that is larger.
    """
    scale = max(1.0, float(np.abs(reference).max()))
    if not np.allclose(logits, reference, rtol=1e-3, atol=1e-3 * scale):
        raise BundleError(f"the network computes something else once exported to {form}")
    return float(np.abs(logits - reference).max())


def from_pixels(
    parts: Mapping[str, nn.Module], spec: Preprocess, unfamiliarity: nn.Module | None = None
) -> nn.Module:
    """Return a network with the last preprocessing steps in front, as in views.py's plain view.

    The module, in evaluation mode, takes squares as preprocess.squared cuts them. It returns the
    outputs of all parts but MIDDLE, the last one first, and then the unfamiliarity. If the mirror
    image counts too, FEATURES and LOGITS are of both, all else of the image itself.
    """
    import torch
    from torch import nn

    class FromPixels(nn.Module):
        mean: torch.Tensor
        std: torch.Tensor
        down: torch.Tensor
        across: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.names = list(parts)
            self.parts = nn.ModuleList(parts.values())
            self.unfamiliarity = unfamiliarity
            self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))
            if spec.crop < spec.size:
                down = torch.from_numpy(enlarging(spec.crop, spec.size, spec.enlarge))
                self.register_buffer("down", down)
                # An exported transposition would run for every batch.
                self.register_buffer("across", down.t().contiguous())

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = images.permute(0, 3, 1, 2).float()  # (n, 3, crop, crop), 0..255
            if spec.crop < spec.size:
                x = self.down @ x @ self.across
            x = (x / 255 - self.mean) / self.std
            if spec.mirrored:
                x = torch.cat([x, x.flip(3)])
            outputs: dict[str, torch.Tensor] = {}
            for name, part in zip(self.names, self.parts, strict=True):
                x = outputs[name] = part(x)
                if spec.mirrored and name != LOGITS:
                    both = x.unflatten(0, (2, -1))
                    outputs[name] = both[0]
                    if name == FEATURES:
                        x = outputs[name] = both.mean(0)
            middle = outputs.pop(MIDDLE, None)
            values = list(reversed(outputs.values()))
            if self.unfamiliarity is not None:
                values.append(self.unfamiliarity(middle, x))
            return tuple(values)

    return FromPixels().eval()
