"""Keras's published MobileNetV2 weights (.h5), read into timm's names.

The legacy HDF5 layout, as keras/src/legacy/saving/legacy_h5_format.py writes it: `layer_names` on
the root, or on its group `model_weights` where a whole model was saved; `weight_names` on each
layer's group; below it the datasets. An attribute of more than 64 kB is cut into name0, name1, ...
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..core.errors import WeightsError, first_line
from ..net.published import Remote
from . import keras_layers

if TYPE_CHECKING:
    import h5py

EPSILON = 1e-3  # of every batch-norm in keras/src/applications/mobilenet_v2.py
PADDING = "same"
MEAN = STD = (0.5, 0.5, 0.5)  # preprocess_input maps pixels to [-1, 1]
LICENCE = "Apache-2.0"
SIZES = (96, 128, 160, 192, 224)  # pixels a side for which Keras publishes weights

# What Keras calls a layer's arrays, in its order, and what timm does.
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class _Expected:
    """A layer of the table: Keras's name, timm's, and its arrays' names and shapes as Keras's."""

    keras: str
    timm: str
    arrays: dict[str, tuple[int, ...]]


def published(size: int) -> Remote:
    """Return Keras's file for the size nearest to this many pixels a side.

    Keras pins no hash for it, so none is checked here: what is checked is that it came over https
    and whole, and that it holds every tensor of MobileNetV2 in its shape, finite.
    """
    nearest = min(SIZES, key=lambda known: (abs(known - size), -known))
    return Remote(
        "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2",
        f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{nearest}_no_top.h5",
        None,
        20_000_000,
    )


def size_in_name(path: Path) -> int | None:
    """Return the pixels a side that a published file's name states."""
    match = re.search(r"_1\.0_(\d+)(?:_no_top)?\.h5$", path.name)
    return int(match[1]) if match else None


def read_keras(path: Path) -> dict[str, torch.Tensor]:
    """Return the trunk's tensors in timm's names and layout, float32; a head is left out.

    Layers are taken in the file's order, as Keras itself loads them, for the published files have
    names of an older Keras; where the names are today's they must be the table's.
    Raises WeightsError when the file is damaged or is not MobileNetV2 of width 1.0.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    # h5py raises these, and RuntimeError for the rest, when bytes are not what their header says.
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(
            f"--weights '{path}': not a readable HDF5 file ({first_line(error)})"
        ) from error


def _read(file: h5py.File, path: Path) -> dict[str, torch.Tensor]:
    root: Any = file
    if "model_weights" in file and _names(file, "layer_names") is None:
        root = _inside(file, "model_weights")
    layers = _names(root, "layer_names")
    if layers is None:
        own = "layers" in file or "_layer_checkpoint_dependencies" in file
        raise WeightsError(
            f"--weights '{path}': no Keras weights in the HDF5 layout with 'layer_names'"
            + (
                "; this is Keras 3's own layout: load it in Keras and save it with "
                "model.save('FILE.h5')"
                if own
                else f", the file has {sorted(file)[:4]}"
            )
        )
    groups = [(name, _names(_inside(root, name), "weight_names") or []) for name in layers]
    filled = [(name, arrays) for name, arrays in groups if arrays]
    table = _table()
    if len(filled) < len(table):
        raise WeightsError(
            f"--weights '{path}': {len(filled)} layers with weights, "
            f"Keras's MobileNetV2 has {len(table)}"
        )
    todays = {expected.keras for expected in table}
    tensors: dict[str, torch.Tensor] = {}
    for expected, (name, arrays) in zip(table, filled, strict=False):
        if name != expected.keras and name in todays:
            raise WeightsError(
                f"--weights '{path}': layer '{name}' stands where Keras's MobileNetV2 has "
                f"'{expected.keras}'"
            )
        roles = {_role(array): array for array in arrays}
        if "depthwise_kernel" in expected.arrays and "kernel" in roles:  # Keras 3's name for it
            roles["depthwise_kernel"] = roles.pop("kernel")
        if roles.keys() != expected.arrays.keys():
            raise WeightsError(
                f"--weights '{path}': layer '{name}' holds {', '.join(roles)}; expected "
                f"{', '.join(expected.arrays)} of '{expected.keras}'"
            )
        for role, shape in expected.arrays.items():
            value = _array(_inside(root, f"{name}/{roles[role]}"))
            if value.shape != shape:
                raise WeightsError(
                    f"--weights '{path}': {name}/{role} is {tuple(value.shape)}, expected {shape} "
                    f"of '{expected.keras}' in a MobileNetV2 of width 1.0"
                )
            key = f"{expected.timm}.{_NORM.get(role, 'weight')}"
            tensors[key] = torch.from_numpy(_to_torch(role, value))
    return tensors


@functools.cache
def _table() -> tuple[_Expected, ...]:
    """Return the layers with weights and what Keras holds for each, from timm's own network."""
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
        if not rest:
            arrays: dict[str, tuple[int, ...]] = dict.fromkeys(_NORM, (out,))
        elif keras.endswith("_depthwise"):
            arrays = {"depthwise_kernel": (rest[1], rest[2], out, rest[0])}
        else:
            arrays = {"kernel": (rest[1], rest[2], rest[0], out)}
        table.append(_Expected(keras, name, arrays))
    return tuple(table)


def _role(array: str) -> str:
    """Return 'gamma' of 'bn_Conv1/gamma:0'."""
    return array.rsplit("/", 1)[-1].split(":", 1)[0]


def _to_torch(role: str, value: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    if role == "kernel":  # (h, w, in, out) -> (out, in, h, w)
        value = value.transpose(3, 2, 0, 1)
    elif role == "depthwise_kernel":  # (h, w, channels, 1) -> (channels, 1, h, w)
        value = value.transpose(2, 3, 0, 1)
    return np.ascontiguousarray(value)


# --- HDF5 ----------------------------------------------------------------------------------------


def _names(group: Any, name: str) -> list[str] | None:
    """Return a list of names kept as an attribute, whole or cut into name0, name1, ..."""
    if name in group.attrs:
        chunks = [group.attrs[name]]
    else:
        chunks = []
        while f"{name}{len(chunks)}" in group.attrs:
            chunks.append(group.attrs[f"{name}{len(chunks)}"])
        if not chunks:
            return None
    words = [word for chunk in chunks for word in np.asarray(chunk).reshape(-1).tolist()]
    return [word.decode() if isinstance(word, bytes) else str(word) for word in words]


def _inside(group: Any, path: str) -> Any:
    """Return what lies at a path, following hard links only: no link leads to another file."""
    import h5py

    for step in path.split("/"):
        if not isinstance(group.get(step, getlink=True), h5py.HardLink):
            raise KeyError(f"no '{path}'")
        group = group[step]
    return group


def _array(dataset: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a dataset's numbers; its own bytes, not those of a file that it points to."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f":
        raise TypeError("what should be an array of floats is not one")
    if dataset.external is not None or dataset.is_virtual:
        raise TypeError(f"'{dataset.name}' keeps its numbers in another file")
    if dataset.size > 1 << 20:
        raise ValueError(f"'{dataset.name}' of shape {dataset.shape} is none of MobileNetV2's")
    return np.asarray(dataset[()], dtype=np.float32)
