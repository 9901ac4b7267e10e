"""Class-activation maps: where in an image a network saw a class."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BundleError
from .format import WEIGHTS, Description, read_weights

_TYPES = {"F16": "<f2", "F32": "<f4"}  # safetensors' names


def class_map(
    feature_map: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return where one class was seen, (h, w), 0 to 1, the most at 1; all 0 where it was nowhere.

    feature_map: of one image, (channels, h, w). weights: of the class, (channels,).
    The class's logit is the mean over positions of their product, and its bias: what each position
    adds to the logit, without what speaks against the class (Zhou et al. 2016, "Learning deep
    features for discriminative localization").
    """
    found = np.maximum(np.tensordot(weights, feature_map, 1), 0)
    most = found.max()
    return (found / most if most > 0 else found).astype(np.float32)


def read_class_weights(description: Description) -> NDArray[np.float32] | None:
    """Return the head's weights, (classes, channels), of a network that has class maps, else None.

    Read without the package safetensors, which need not be installed to predict; for the layout
    see format.write_safetensors.
    Raises BundleError when model.safetensors is not what model.json describes.
    """
    name = description.architecture.class_weights
    if name is None:
        return None
    content = read_weights(description)
    try:
        end = 8 + int.from_bytes(content[:8], "little")
        entry = json.loads(content[8:end])[name]
        values = _values(content[end:], entry)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(
            f"'{description.path / WEIGHTS}' does not hold '{name}' as model.json says "
            f"({error}); copy the bundle again"
        ) from error
    classes = len(description.meaning.classes)
    if values.ndim != 2 or len(values) != classes or not np.isfinite(values).all():
        raise BundleError(
            f"'{description.path / WEIGHTS}': '{name}' is {values.shape}, and there are "
            f"{classes:,} classes; copy the bundle again"
        )
    return values


def _values(data: bytes, entry: dict[str, Any]) -> NDArray[np.float32]:
    """Return a tensor by its entry in the header; offsets count from the header's end."""
    kind = np.dtype(_TYPES[entry["dtype"]])
    first, last = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(side) for side in entry["shape"])
    if first < 0 or last - first != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{last - first:,} bytes for {shape} of {entry['dtype']}")
    return np.frombuffer(data[first:last], kind).reshape(shape).astype(np.float32)
