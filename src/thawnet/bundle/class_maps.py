"""Class-activation maps: where in an image a network saw a class."""

from __future__ import annotations

import json
import math

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BundleError
from .format import WEIGHTS, Description, read_weights

_TYPES = {"F16": "<f2", "F32": "<f4"}  # safetensors' names


def class_map(
    feature_map: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return one class's map, (h, w), from 0 to a maximum of 1; all 0 if it was not seen.

    feature_map: of one image, (channels, h, w). weights: of the class, (channels,).
    The class's logit is its bias plus the mean over positions of their product. The map is the
    contribution of each position to the logit, with negative ones set to 0 (Zhou et al. 2016,
    "Learning deep features for discriminative localization").
    """
    evidence = np.maximum(np.tensordot(weights, feature_map, 1), 0)
    most = evidence.max()
    return (evidence / most if most > 0 else evidence).astype(np.float32)


def read_class_weights(description: Description) -> NDArray[np.float32] | None:
    """Return the head's weights, (classes, channels), or None for a network without class maps.

    They are read without the package safetensors, which need not be installed to predict; for the
    layout see format.write_safetensors.
    Raises BundleError when model.safetensors is not what model.json describes.
    """
    name = description.architecture.class_weights
    if name is None:
        return None
    content = read_weights(description)
    try:
        end = 8 + int.from_bytes(content[:8], "little")
        entry = json.loads(content[8:end])[name]
        kind = np.dtype(_TYPES[entry["dtype"]])
        first, last = (end + int(offset) for offset in entry["data_offsets"])
        shape = tuple(int(side) for side in entry["shape"])
        if first < end or last - first != math.prod(shape) * kind.itemsize:
            raise ValueError(f"{last - first:,} bytes for {shape} of {entry['dtype']}")
        weights = np.frombuffer(content[first:last], kind).reshape(shape).astype(np.float32)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BundleError(
            f"'{description.path / WEIGHTS}' does not hold '{name}' as model.json says "
            f"({error}); copy the bundle again"
        ) from error
    classes = len(description.meaning.classes)
    if weights.ndim != 2 or len(weights) != classes or not np.isfinite(weights).all():
        raise BundleError(
            f"'{description.path / WEIGHTS}': '{name}' is {weights.shape}, and there are "
            f"{classes:,} classes; copy the bundle again"
        )
    return weights
