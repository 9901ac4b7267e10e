"""The network that a page carries: weights in float16, held against the bundle's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.export import halved, probe_squares
from ..bundle.format import WEIGHTS, Description
from ..bundle.predict import Model, Outputs, softmax
from ..errors import BundleError
from ..image.decode import decode, read_file
from ..image.preprocess import Preprocess, squared
from ..serve.facts import EXAMPLES

MOST_OFF = 0.01  # of a calibrated probability


def smaller(description: Description, onnx: bytes, model: Model) -> tuple[bytes, float]:
    """Return an ONNX model for a page, and by how much its probabilities differ at most.

    onnx: of the bundle, opened as `model`. A quantised one is taken as it is, and differs by 0.
    Raises BundleError for a network whose weights float16 can not hold, or that computes something
    else with them.
    """
    if WEIGHTS not in description.sha256:
        return onnx, 0.0
    small = halved(onnx)
    other = Model(description, small)
    squares = _squares(model.preprocess)
    off = _difference(model.outputs(squares), other.outputs(squares), model.temperature)
    if not off <= MOST_OFF:
        raise BundleError(
            f"with weights in float16 the network's probabilities differ by up to {off:.3f} (at "
            f"most {MOST_OFF} is taken), and nothing is written; export it with --to onnx-int8, "
            "and that bundle as a page"
        )
    return small, off


def _squares(spec: Preprocess) -> NDArray[np.uint8]:
    """Return noise and photos to try a network on, (n, crop, crop, 3)."""
    photos = [decode(read_file(path), spec.side) for path in sorted(EXAMPLES.iterdir())]
    return np.concatenate([probe_squares(spec), [squared(photo, spec) for photo in photos]])


def _difference(found: Outputs, wanted: Outputs, temperature: float) -> float:
    one, other = (softmax(each.logits / temperature) for each in (found, wanted))
    off = float(np.abs(one - other).max())
    if found.unfamiliarity is not None and wanted.unfamiliarity is not None:
        scale = max(1.0, float(np.abs(wanted.unfamiliarity).max()))
        off = max(off, float(np.abs(found.unfamiliarity - wanted.unfamiliarity).max()) / scale)
    return off
