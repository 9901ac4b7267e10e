"""Keras's model files: the layers of a model and where their arrays are, in any of its layouts.

Keras 3 (keras/src/saving/saving_lib.py), in NAME.weights.h5 or inside NAME.keras, a zip: a model's
group `layers` has one group per layer, named after its class and numbered in the model's order. The
layer's arrays are in `vars/0`, `vars/1`, ...; later versions store its name as an attribute of
`vars`.

Legacy .h5 (keras/src/legacy/saving/legacy_h5_format.py): the attribute `layer_names` is on the
root, or on its group `model_weights` where a whole model was saved. Each layer's group has the
attribute `weight_names` and contains the datasets. An attribute of more than 64 kB is split into
name0, name1, ...
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import WeightsError, first_line

if TYPE_CHECKING:
    import h5py

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"
IN_ZIP = "model.weights.h5"
LARGEST = 2**30  # bytes once unpacked
DEEPEST = 8  # levels of groups that are searched for nested models

# Arrays of the layers that are read, in the order of their `vars`, by Keras 3's class names.
ROLES = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("depthwise_kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


@dataclass(frozen=True)
class KerasLayer:
    """A layer that has arrays."""

    name: str
    kind: str
    """A key of ROLES; '' in the legacy layout, which does not record it."""
    arrays: dict[str, str]
    """Path of each array in the file, by role: 'kernel', 'gamma', ..."""


def is_keras(path: Path) -> bool:
    """Return whether a file was saved by Keras, judging by its content."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(len(HDF5))
    return head == HDF5 or (head.startswith(ZIP) and _in_zip(path) is not None)


@contextlib.contextmanager
def open_keras(path: Path) -> Iterator[h5py.File]:
    """Open a Keras file; raise WeightsError if it, or anything read from it, is damaged."""
    import h5py

    try:
        inside = _in_zip(path)
        if inside is None:
            with h5py.File(path, "r") as file:
                yield file
            return
        if inside.file_size > LARGEST:
            raise ValueError(f"it unpacks to {inside.file_size:,} bytes")
        with zipfile.ZipFile(path) as archive, archive.open(inside) as packed:
            content = packed.read(LARGEST)
        with h5py.File(io.BytesIO(content), "r") as file:
            yield file
    # h5py raises these, and RuntimeError for the rest, when bytes are not what their header says.
    except (
        *(OSError, KeyError, ValueError, TypeError, RuntimeError),
        *(zipfile.BadZipFile, NotImplementedError, EOFError),
    ) as error:
        raise WeightsError(
            f"--weights '{path}': not a readable file of Keras ({first_line(error)})"
        ) from error


def layers_of(file: h5py.File) -> list[KerasLayer]:
    """Return the layers that have arrays, in the file's order; none if the layout is not Keras's.

    For nested models, such as Sequential([MobileNetV2(...), Dense(5)]), these are the layers of all
    models in the legacy layout, and those of the model with the most batch-norms in Keras 3's.
    """
    root = "model_weights/" if "model_weights" in file else ""
    names = _names(inside(file, root.rstrip("/")) if root else file, "layer_names")
    if names is not None:
        return list(_legacy(file, root, names))
    found = [_keras_3(group) for group in _containers(file, DEEPEST)]
    return max(found, key=_norms, default=[])


def inside(group: Any, path: str) -> Any:
    """Return the object at a path, following hard links only, which cannot lead to another file."""
    for step in path.split("/"):
        group = _child(group, step)
        if group is None:
            raise KeyError(f"no '{path}'")
    return group


def read_array(file: h5py.File, path: str, most: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return an array of at most `most` floats, stored in this file and not in another."""
    import h5py

    dataset = inside(file, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f":
        raise TypeError("what should be an array of floats is not one")
    if dataset.external is not None or dataset.is_virtual:
        raise TypeError(f"'{dataset.name}' keeps its numbers in another file")
    if dataset.size > most:
        raise ValueError(f"'{dataset.name}' of shape {dataset.shape} is too large")
    return np.asarray(dataset[()], dtype=np.float32)


def _child(group: Any, name: str) -> Any:
    """Return a group's member if it is a hard link, else None."""
    import h5py

    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def _in_zip(path: Path) -> zipfile.ZipInfo | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.getinfo(IN_ZIP)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, KeyError, OSError):
        return None


def _legacy(file: h5py.File, root: str, names: list[str]) -> Iterator[KerasLayer]:
    for name in names:
        arrays: dict[str, dict[str, str]] = {}
        # A nested model is a single layer here, with the arrays of all its layers.
        for array in _names(inside(file, root + name), "weight_names") or []:
            layer = ("/" + array).rsplit("/", 2)[-2] or name
            role = array.rsplit("/", 1)[-1].split(":", 1)[0]  # gamma of bn_Conv1/gamma:0
            arrays.setdefault(layer, {})[role] = f"{root}{name}/{array}"
        for layer, roles in arrays.items():
            yield KerasLayer(layer, "", roles)


def _containers(group: Any, depth: int) -> Iterator[Any]:
    """Yield the groups named `layers`, of a model and of the models nested in it."""
    import h5py

    for name in group:
        child = _child(group, name)
        if isinstance(child, h5py.Group) and depth:
            if name == "layers":
                yield child
            yield from _containers(child, depth - 1)


def _keras_3(group: Any) -> list[KerasLayer]:
    import h5py

    numbered: list[tuple[int, KerasLayer]] = []
    for name in group:
        kind, _, number = name.rpartition("_")
        if not number.isdigit():
            kind, number = name, "0"
        layer = _child(group, name)
        values = _child(layer, "vars") if isinstance(layer, h5py.Group) else None
        if kind not in ROLES or not isinstance(values, h5py.Group):
            continue
        path = values.name.lstrip("/")
        arrays = {role: f"{path}/{at}" for at, role in enumerate(ROLES[kind]) if str(at) in values}
        called = str(values.attrs.get("name", name))
        numbered.append((int(number), KerasLayer(called, kind, arrays)))
    return [layer for _, layer in sorted(numbered, key=lambda each: each[0])]


def _norms(layers: list[KerasLayer]) -> int:
    return sum(layer.kind == "batch_normalization" for layer in layers)


def _names(group: Any, name: str) -> list[str] | None:
    """Return a list of names stored as an attribute, whole or split into name0, name1, ..."""
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
