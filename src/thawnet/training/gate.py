"""The ONNX model of a trained network, and the check that it must pass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from ..bundle.meaning import Meaning
from ..bundle.onnx import FEATURE_MAP, FEATURES, IMAGES, LOGITS, MIDDLE, to_onnx
from ..core import console
from ..core.errors import BundleError
from ..data.items import spread_over
from ..data.store import ImageStore
from ..data.views import plain_views
from ..image.preprocess import centre_crop
from ..model.backbone import Network
from ..model.folding import frozen_copy
from .context import Run
from .familiarity import middle_of
from .trunk.cache import Origin

GATE_BATCH = 10  # images: few, so that the end of a run takes no more memory than its training
GATE_IMAGES = 1000  # of validation, evenly spread, that are compared
GATE_AGREEMENT = 0.999
GATE_TIE = 1e-3  # two probabilities closer than this are a tie


@dataclass(frozen=True)
class Agreement:
    """Agreement of two forms of a network on real images."""

    images: int
    """Images compared."""
    same_top_1: float
    """Share whose most probable class is the same, 0 to 1."""
    decided_top_1: float
    """The same, but a tie of the two most probable classes counts as agreement."""
    largest_difference: float
    """Largest difference of any probability."""


def outputs(network: Network, middle: int | None = None) -> dict[str, nn.Module]:
    """Return a network for inference, float32 on the CPU, in parts named by their outputs.

    `middle`: the input of the stage with this number. `feature_map`: the input of the last stage
    with positions, (n, channels, h, w), if there is one, as in all convolutional networks.
    `features`: the input of the head, (n, d). `logits`: the output.
    """
    ends: dict[str, int | None] = {FEATURES: len(network.stages) - 1, LOGITS: None}
    if network.last_map:
        ends = {FEATURE_MAP: network.last_map, **ends}
    if middle is not None:
        ends = {MIDDLE: middle, **ends}
    cuts = itertools.pairwise([0, *ends.values()])
    return {
        name: frozen_copy(network.part(first or 0, last), torch.float32, torch.device("cpu"))
        for name, (first, last) in zip(ends, cuts, strict=True)
    }


def class_weights(network: Network, parts: Mapping[str, nn.Module]) -> str | None:
    """Return timm's name of the tensor that turns `feature_map` into class maps, or None.

    parts: of the network, see `outputs`. There is one if the features are the means of the map over
    all positions. There is none if layers lie between the two, or there is no map.
    """
    if FEATURE_MAP not in parts:
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((2, 3, network.size, network.size), generator=generator) * 2 - 1
    values: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for name, part in parts.items():
            x = values[name] = part(x)
        features, means = values[FEATURES], values[FEATURE_MAP].mean((2, 3))
    same = features.shape == means.shape and torch.allclose(features, means, rtol=1e-3, atol=1e-5)
    return f"{network.head_name}.weight" if same else None


@dataclass(frozen=True)
class Exported:
    """The ONNX model of a network."""

    onnx: bytes
    agreement: Agreement
    """Agreement of the model with the network."""
    class_weights: str | None
    """Name of the tensor that makes class maps, see `class_weights`."""


def export(run: Run, meaning: Meaning, unfamiliarity: nn.Module | None) -> Exported | None:
    """Return the ONNX model of a run's network, or None if it has none.

    unfamiliarity: see familiarity.fit_familiarity. If the network cannot be exported, or its export
    disagrees on validation images, the run continues with a message on stderr.
    """
    try:
        parts = outputs(run.network, middle_of(run.network) if unfamiliarity else None)
        content = to_onnx(parts, meaning, unfamiliarity)
        return Exported(
            content,
            gate(run.network, run.origin(run.val), content, meaning.temperature),
            class_weights(run.network, parts),
        )
    except BundleError as error:
        console.say(f"{error}: the bundle holds no model.onnx, `thawnet predict` cannot use it")
        return None


def gate(network: Network, images: Origin, content: bytes, temperature: float) -> Agreement:
    """Compare an ONNX model with the network that it was made from, on real images.

    ONNX Runtime gets pixels, as in prediction; torch gets the views that training evaluates on.
    Raises BundleError unless both agree on the top class of 99.9 % of the images. Near ties of the
    two most probable classes count as agreement.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest layers
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    count, crop = len(images.images), images.spec.crop
    rows = spread_over(count, GATE_IMAGES)
    sides = [plain_views(count, images.augment)]
    if images.spec.mirrored:
        sides.append(plain_views(count, images.augment, mirror=True))
    network.eval()
    pairs: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    with console.progress("comparing the exported network", len(rows)) as advance:
        for some in np.array_split(rows, len(rows) // GATE_BATCH + 1):
            with torch.inference_mode():
                both = [network(images.pictures(some, views)).float() for views in sides]
                logits = torch.stack(both).mean(0).cpu().numpy()
            squares = squares_of(images.images, some, crop)
            pairs.append((logits, session.run([LOGITS], {IMAGES: squares})[0]))
            advance(len(some))
    own, other = (np.concatenate(logits) for logits in zip(*pairs, strict=True))
    compared = agreement(own, other, temperature)
    if compared.decided_top_1 < GATE_AGREEMENT:
        raise BundleError(
            f"exported to ONNX, the network names another class for "
            f"{100 * (1 - compared.decided_top_1):.2f} % of {compared.images:,} validation images"
        )
    return compared


def squares_of(images: ImageStore, positions: NDArray[np.int64], crop: int) -> NDArray[np.uint8]:
    """Return the input of model.onnx for some images, (n, crop, crop, 3)."""
    return np.stack([centre_crop(image, crop) for image in images.batch(positions)])


def agreement(
    one: NDArray[np.float32], other: NDArray[np.float32], temperature: float
) -> Agreement:
    """Return the agreement of two forms' logits, (n, classes), of the same images."""
    shares, others = (
        softmax(logits.astype(np.float64) / temperature, axis=1) for logits in (one, other)
    )
    same = shares.argmax(axis=1) == others.argmax(axis=1)
    best = np.sort(shares, axis=1)
    tie = best[:, -1] - best[:, -2] < GATE_TIE
    return Agreement(
        images=len(one),
        same_top_1=float(same.mean()),
        decided_top_1=float((same | tie).mean()),
        largest_difference=float(np.abs(shares - others).max()),
    )
