"""The network in a page: large weights in float16 where that changes next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...bundle.format import WEIGHTS, Description
from ...bundle.model import Model, softmax
from ...bundle.onnx import halved
from ...core import console
from ...core.errors import ThawnetError
from ...core.packages import TRAIN_PACKAGES, missing, require_installed

MOST_OFF = 0.01  # largest change of a calibrated probability
# Fewest values of a tensor that is put in float16. MobileNetV2's depthwise kernels are smaller, and
# cause most of the error: with them in float16 probabilities changed by up to 0.04, without by
# 0.002, for 0.3 MB more (docs/experiments.md).
HALVED_FROM = 20_000
AT_ONCE = 32  # images
FLOAT32 = "weights in float32, as the bundle's"


def page_network(
    description: Description,
    onnx: bytes,
    model: Model,
    validation: Callable[[], NDArray[np.uint8] | None],
) -> tuple[bytes, str]:
    """Return the ONNX model of a page, and a description of how it compares with the bundle's.

    onnx: the bundle's ONNX model, opened as `model`. validation: see `validation_squares`. The
    weights stay in float32 if there are no validation images, or if float16 would change the
    outputs for one of them by more than MOST_OFF, see `_difference`.
    """
    if WEIGHTS not in description.sha256:
        return onnx, "in int8, as the bundle"
    if missing(("onnx",)):
        console.say("the page's weights stay in float32: onnx is not installed")
        return onnx, FLOAT32
    small = halved(onnx, HALVED_FROM)
    if small == onnx:
        return onnx, "the bundle's own network"
    squares = validation()
    if squares is not None:
        off = _difference(model, Model(description, small), squares)
        change = f"changes probabilities by up to {off:.1e} on {len(squares):,} validation images"
        if off <= MOST_OFF:
            return small, f"weights in float16, which {change}"
        console.say(f"float16 {change}: the page's weights stay in float32")
    return onnx, FLOAT32


def validation_squares(
    description: Description, data: str | None, data_dir: Path | None
) -> NDArray[np.uint8] | None:
    """Return a network's validation images, (n, crop, crop, 3), or None if none are available.

    data, data_dir: as for `thawnet train`. If either is given, errors in reading them are raised.
    """
    required = data is not None or data_dir is not None
    lacking = missing(TRAIN_PACKAGES)
    if lacking and not required:
        console.say(f"the page's weights stay in float32: {lacking[0]} is not installed")
        return None
    require_installed("--data", TRAIN_PACKAGES)
    from ...data.items import spread_over
    from ...training.gate import GATE_IMAGES, squares_of
    from ...training.reopening import reopen_train_val

    try:
        _, val = reopen_train_val(description, data, data_dir)
    except ThawnetError as error:
        if required:
            raise
        console.say(f"the page's weights stay in float32, untried in float16: {error}")
        return None
    rows = np.asarray(spread_over(len(val), GATE_IMAGES))
    return squares_of(val, rows, description.meaning.preprocess.crop)


def _difference(model: Model, small: Model, squares: NDArray[np.uint8]) -> float:
    """Return the largest difference of probabilities, and of unfamiliarity as a share."""
    off = 0.0
    with console.progress("comparing the smaller network", len(squares)) as advance:
        for batch in np.array_split(squares, len(squares) // AT_ONCE + 1):
            exact, rounded = model.outputs(batch), small.outputs(batch)
            shares = [softmax(outputs.logits / model.temperature) for outputs in (exact, rounded)]
            off = max(off, float(np.abs(shares[0] - shares[1]).max()))
            if exact.unfamiliarity is not None and rounded.unfamiliarity is not None:
                scale = max(1.0, float(np.abs(exact.unfamiliarity).max()))
                moved = np.abs(exact.unfamiliarity - rounded.unfamiliarity)
                off = max(off, float(moved.max()) / scale)
            advance(len(batch))
    return off
