"""MobileNetV2 weights from Keras, published or the user's own, read under timm's names."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.errors import WeightsError
from ..net.published import Remote
from . import keras_layers
from .keras_file import KerasLayer, layers_of, open_keras, read_array

EPSILON = 1e-3  # of every batch-norm in keras/src/applications/mobilenet_v2.py
PADDING = "same"
MEAN = STD = (0.5, 0.5, 0.5)  # preprocess_input maps pixels to [-1, 1]
LICENCE = "Apache-2.0"
LARGEST = 1 << 20  # elements of one array
SIZES = (96, 128, 160, 192, 224)  # input sizes in pixels for which Keras publishes weights

# Keras's names for a batch-norm's arrays, in its order, mapped to timm's.
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class _Expected:
    """A layer of the table: its names in Keras and timm, and its arrays as Keras stores them."""

    keras: str
    timm: str
    arrays: Mapping[str, tuple[int, ...]]
    kind: str
    """Name of its class in a Keras 3 file."""


def published(size: int) -> Remote:
    """Return the file that Keras publishes for the input size nearest to `size` pixels.

    Keras pins no hash for it, so none is checked. The checks are that it arrived over https and
    complete, and that it holds every tensor of MobileNetV2, finite and in the right shape.
    """
    nearest = min(SIZES, key=lambda known: (abs(known - size), -known))
    return Remote(
        "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2",
        f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{nearest}_no_top.h5",
        None,
        20_000_000,
    )


def size_in_name(path: Path) -> int | None:
    """Return the input size in pixels that a published file's name states, None if it has none."""
    match = re.search(r"_1\.0_(\d+)(?:_no_top)?\.h5$", path.name)
    return int(match[1]) if match else None


def read_keras(path: Path) -> dict[str, torch.Tensor]:
    """Return the trunk's tensors in timm's names and layout, float32, without any head.

    Layers are matched by Keras's current names. A file with other names, such as one published by
    an older Keras, is matched by layer order, as Keras itself does.
    Raises WeightsError when the file is damaged or is not MobileNetV2 of width 1.0.
    """
    with open_keras(path) as file:
        layers = layers_of(file)
        if not layers:
            raise WeightsError(
                f"--weights '{path}': no Keras model in a known layout: the file has "
                f"{sorted(file)[:4]}, expected those of .keras, .weights.h5 or .h5"
            )
        tensors: dict[str, torch.Tensor] = {}
        for expected, layer in _matched(_table(), layers, path):
            arrays = dict(layer.arrays)
            if "depthwise_kernel" in expected.arrays and "kernel" in arrays:  # since Keras 3
                arrays["depthwise_kernel"] = arrays.pop("kernel")
            if arrays.keys() != expected.arrays.keys():
                raise WeightsError(
                    f"--weights '{path}': layer '{layer.name}' holds {', '.join(arrays)}; "
                    f"expected {', '.join(expected.arrays)} of '{expected.keras}'"
                )
            for role, shape in expected.arrays.items():
                value = read_array(file, arrays[role], LARGEST)
                if value.shape != shape:
                    raise WeightsError(
                        f"--weights '{path}': {layer.name}/{role} is {tuple(value.shape)}, "
                        f"expected {shape} of '{expected.keras}' in a MobileNetV2 of width 1.0"
                    )
                key = f"{expected.timm}.{_NORM.get(role, 'weight')}"
                tensors[key] = torch.from_numpy(_to_torch(role, value))
    return tensors


def _matched(
    table: tuple[_Expected, ...], layers: list[KerasLayer], path: Path
) -> Iterator[tuple[_Expected, KerasLayer]]:
    """Yield each layer of the table with the matching layer of the file."""
    named = {layer.name: layer for layer in layers}
    if all(expected.keras in named for expected in table):
        yield from ((expected, named[expected.keras]) for expected in table)
        return
    in_order: dict[str, list[KerasLayer]] = {}
    for layer in layers:
        in_order.setdefault(layer.kind, []).append(layer)
    kinds = [expected.kind if layers[0].kind else "" for expected in table]
    for kind, number in Counter(kinds).items():
        if len(in_order.get(kind, [])) < number:
            raise WeightsError(
                f"--weights '{path}': of Keras's networks MobileNetV2 is read; this is another "
                f"({len(in_order.get(kind, []))} {kind or 'layers'}, expected {number}); timm has "
                "most others: `thawnet backbones WORD`"
            )
    queues = {kind: iter(found) for kind, found in in_order.items()}
    todays = {expected.keras for expected in table}
    for expected, kind in zip(table, kinds, strict=True):
        layer = next(queues[kind])
        if layer.name != expected.keras and layer.name in todays:
            raise WeightsError(
                f"--weights '{path}': layer '{layer.name}' stands where Keras's MobileNetV2 has "
                f"'{expected.keras}'"
            )
        yield expected, layer


@functools.cache
def _table() -> tuple[_Expected, ...]:
    """Return the layers with weights and Keras's arrays for each, derived from timm's network."""
    import timm

    with torch.device("meta"):
        shapes = {
            key: tuple(value.shape)
            for key, value in timm.create_model(keras_layers.BACKBONE, num_classes=0)
            .state_dict()
            .items()
        }
    table = []
    for keras, name in keras_layers.keras_layers():
        if name is None:
            continue
        out, *rest = shapes[f"{name}.weight"]
        arrays: Mapping[str, tuple[int, ...]]
        if not rest:
            kind, arrays = "batch_normalization", dict.fromkeys(_NORM, (out,))
        elif keras.endswith("_depthwise"):
            kind, arrays = "depthwise_conv2d", {"depthwise_kernel": (*rest[1:], out, rest[0])}
        else:
            kind, arrays = "conv2d", {"kernel": (*rest[1:], rest[0], out)}
        table.append(_Expected(keras, name, arrays, kind))
    return tuple(table)


def _to_torch(role: str, value: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    if role == "kernel":  # (h, w, in, out) -> (out, in, h, w)
        value = value.transpose(3, 2, 0, 1)
    elif role == "depthwise_kernel":  # (h, w, channels, 1) -> (channels, 1, h, w)
        value = value.transpose(2, 3, 0, 1)
    return np.ascontiguousarray(value)
