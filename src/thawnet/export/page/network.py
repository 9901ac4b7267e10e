"""The network that a page carries: large weights in float16 where that changes next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...bundle.format import WEIGHTS, Description
from ...bundle.model import Model, Outputs, softmax
from ...bundle.onnx import halved
from ...core import console

MOST_OFF = 0.01  # of a calibrated probability
# Values of a tensor in float16. MobileNetV2's depthwise kernels, which are smaller, cause most of
# the error: with them probabilities moved by up to 0.04, without by 0.002, for 0.3 MB more
# (docs/experiments.md).
HALVED_FROM = 20_000
AT_ONCE = 32  # images


@dataclass(frozen=True)
class PageNetwork:
    """The ONNX model of a page. told: how it compares with the bundle's, for a person."""

    onnx: bytes
    told: str


def page_network(
    description: Description,
    onnx: bytes,
    model: Model,
    validation: Callable[[], NDArray[np.uint8] | None],
) -> PageNetwork:
    """Return the network of a page, half as large if its own validation images allow it.

    onnx: of the bundle, opened as `model`. validation: gives images that validated the network,
    (n, crop, crop, 3), None where none are at hand. Then, and where float16 would move a
    probability of one of them by more than MOST_OFF, the weights stay in float32.
    """
    if WEIGHTS not in description.sha256:
        return PageNetwork(onnx, "in int8, as the bundle")
    unchanged = PageNetwork(onnx, "weights in float32, as the bundle's")
    small = halved(onnx, HALVED_FROM)
    if small == onnx:
        return PageNetwork(onnx, "the bundle's own network")
    squares = validation()
    if squares is None:
        return unchanged
    off = _difference(model, Model(description, small), squares)
    change = f"changes probabilities by up to {off:.1e} on {len(squares):,} validation images"
    if not off <= MOST_OFF:
        console.say(f"float16 {change}: the page's weights stay in float32")
        return unchanged
    return PageNetwork(small, f"weights in float16, which {change}")


def _difference(model: Model, other: Model, squares: NDArray[np.uint8]) -> float:
    """Return by how much outputs differ at most: probabilities, and shares of unfamiliarity."""
    off = 0.0
    with console.progress("comparing the smaller network", len(squares)) as advance:
        for some in np.array_split(squares, len(squares) // AT_ONCE + 1):
            off = max(off, _off(model.outputs(some), other.outputs(some), model.temperature))
            advance(len(some))
    return off


def _off(probabilities: Outputs, reference: Outputs, temperature: float) -> float:
    one, other = (softmax(each.logits / temperature) for each in (probabilities, reference))
    off = float(np.abs(one - other).max())
    if probabilities.unfamiliarity is not None and reference.unfamiliarity is not None:
        scale = max(1.0, float(np.abs(reference.unfamiliarity).max()))
        off = max(
            off, float(np.abs(probabilities.unfamiliarity - reference.unfamiliarity).max()) / scale
        )
    return off
