"""Pretrained weights of a backbone: found, checked, loaded."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from .. import embedded
from ..core.errors import WeightsError, first_line
from ..image.preprocess import MAX_SIDE
from ..net.http import FetchError
from ..net.hub import endpoint, from_hub
from ..net.published import MIRROR, Tell, fetch
from . import keras_layers, keras_weights
from .backbone import Network
from .keras_file import is_keras
from .names import named_in, without_tag
from .recognition import recognised
from .remote_weights import REPOSITORY, located
from .weight_files import read_weights_file
from .weight_names import readings

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

IMAGENET = "imagenet"
KERAS = "keras"
BUNDLED = "bundled"
PADDINGS = ("", "same")  # the model's own, and TensorFlow's

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Weights:
    """Tensors under timm's names, and what they require of network and images."""

    tensors: dict[str, torch.Tensor]
    padding: str
    """'' or 'same'."""
    epsilon: float | None
    """Of the batch-norms; None for the model's own."""
    mean: tuple[float, float, float]
    """Of pixels in [0, 1], like `std`."""
    std: tuple[float, float, float]
    size: int
    """Side in pixels of the images that they were trained on."""
    origin: str
    licence: str
    architecture: str
    """'' where the file does not say."""
    digest: str
    """SHA-256 over names and values."""
    tells_pixels: bool = True
    """Whether the source states `mean` and `std`; else timm's for the backbone are assumed."""
    classes: tuple[str, ...] = ()
    """Names of the head's rows, in order; empty where the source does not name them."""
    read_from: Path | None = None
    """The file or folder that they were read from, if it may be of a run or bundle."""


def load_weights(
    name: str, backbone: str, size: int = 224, tell: Tell = lambda text: None
) -> Weights:
    """Load 'imagenet' (timm's, from the hub), 'keras', 'bundled', or a file or folder of weights.

    size: side of the network's input, in pixels; Keras publishes weights for several.
    tell: receives a message for the user before a download.
    Raises WeightsError when they cannot be found or read, or belong to another backbone.
    """
    weights = _load(name, backbone, size, tell)
    if weights.architecture and without_tag(weights.architecture) != without_tag(backbone):
        raise WeightsError(
            f"--weights '{name}' are of {weights.architecture}, not of {backbone}; "
            f"choose --backbone {weights.architecture}, or other weights"
        )
    return weights


def random_weights(
    name: str, backbone: str, size: int = 224, tell: Tell = lambda text: None
) -> Weights:
    """Return untrained weights, to measure a network's cost; parameters as for `load_weights`."""
    import timm

    tensors = timm.create_model(backbone).state_dict()
    return _as_published(backbone, tensors, "random", "none")


def _as_published(
    backbone: str, tensors: dict[str, torch.Tensor], origin: str, licence: str
) -> Weights:
    """Return tensors as Weights with the preprocessing of timm's own for a backbone."""
    published = _published(backbone)
    return Weights(
        tensors=_in_float(tensors),
        padding="",
        epsilon=None,
        mean=_three(published.mean),
        std=_three(published.std),
        size=published_size(backbone),
        origin=origin,
        licence=licence,
        architecture=backbone,
        digest=_digest(tensors),
    )


def _load(name: str, backbone: str, size: int, tell: Tell) -> Weights:
    if name == BUNDLED:
        return _from_file(embedded.BUNDLE, backbone, BUNDLED)
    if name == IMAGENET:
        return _from_timm(backbone)
    if name == KERAS:
        return _from_keras(backbone, size, tell)
    if not name.strip():
        raise WeightsError("--weights is empty; name weights, or leave it out")
    path = located(name, tell)
    if not path.exists():
        raise WeightsError(
            f"--weights '{name}': no such file; {_neighbour(path)}give one of safetensors, PyTorch "
            "or Keras, a run or bundle, a Hugging Face folder, its hf-hub:OWNER/NAME, an address, "
            f"'{IMAGENET}', '{KERAS}' or '{BUNDLED}'"
        )
    if is_keras(path) or path.suffix in (".h5", ".hdf5", ".keras"):
        return _from_keras_file(path, backbone, "not stated")
    return _from_file(path, backbone, path.absolute().name if path == Path(name) else name)


def _from_file(path: Path, backbone: str, name: str) -> Weights:
    """Load a file or folder of weights; `name` is their origin where they state none."""
    file = read_weights_file(path)
    given, metadata = file.tensors, file.metadata
    try:
        tensors = _in_float(given)
    except RuntimeError as error:  # a dtype that torch knows but cannot read
        raise WeightsError(
            f"--weights '{path}': its numbers cannot be read ({first_line(error)})"
        ) from error
    published = _published(backbone)
    try:
        return Weights(
            tensors=tensors,
            padding=_padding(metadata.get("pad_type", "")),
            epsilon=_within(float(metadata["bn_eps"]), 0, 1) if "bn_eps" in metadata else None,
            mean=_triple(metadata["mean"]) if "mean" in metadata else _three(published.mean),
            std=_triple(metadata["std"], above=0) if "std" in metadata else _three(published.std),
            size=_within(int(metadata.get("input_size", published.input_size[-1])), 0, MAX_SIDE),
            origin=metadata.get("source", name),
            licence=metadata.get("license", "not stated"),
            architecture=metadata.get("architecture", ""),
            digest=_digest(given),
            tells_pixels="mean" in metadata and "std" in metadata,
            classes=_names(metadata.get("classes", "[]")),
            read_from=path,
        )
    except ValueError as error:
        raise WeightsError(
            f"--weights '{path}': its metadata is not understood ({error}); expected pad_type "
            "'same' or none, bn_eps from 0 to 1, mean and std three numbers each, std above 0, "
            "input_size a whole number, classes a JSON list of different names"
        ) from error


def _from_timm(backbone: str) -> Weights:
    """Load a backbone's published weights with timm's own loader."""
    import timm

    if not _published(backbone).has_weights:
        raise WeightsError(
            f"timm publishes no weights of '{backbone}'; give some with --weights FILE, or choose "
            "another --backbone: `thawnet backbones` lists some"
        )
    try:
        model = from_hub(lambda: timm.create_model(backbone, pretrained=True))
    except FetchError as error:
        raise WeightsError(
            f"ImageNet weights of '{backbone}' could not be loaded from {endpoint()} ({error}); "
            "give one with --weights FILE (safetensors, PyTorch, Keras), a mirror with the "
            f"variable HF_ENDPOINT{_or_bundled(backbone)}"
        ) from error
    tensors: dict[str, torch.Tensor] = dict(model.state_dict())
    config: Any = model.pretrained_cfg
    origin, licence = config.get("hf_hub_id") or backbone, config.get("license", "not stated")
    return _as_published(backbone, tensors, str(origin), str(licence))


def _from_keras(backbone: str, size: int, tell: Tell) -> Weights:
    """Load the file that Keras publishes for the size nearest to `size`."""
    _require_mobilenet(KERAS, backbone)
    remote = keras_weights.published(size)
    try:
        path = fetch(remote, tell)
    except FetchError as error:
        raise WeightsError(
            f"Keras's weights could not be downloaded from {remote.url} ({error}); give one "
            f"by --weights FILE (safetensors, PyTorch, Keras), a mirror with the variable {MIRROR}"
            f"{_or_bundled(backbone)}"
        ) from error
    try:
        return _from_keras_file(path, backbone, keras_weights.LICENCE)
    except WeightsError:
        path.unlink()  # no hash reveals a bad download; the next attempt starts afresh
        raise


def _from_keras_file(path: Path, backbone: str, licence: str) -> Weights:
    _require_mobilenet(str(path), backbone)
    tensors = keras_weights.read_keras(path)
    return Weights(
        tensors=tensors,
        padding=keras_weights.PADDING,
        epsilon=keras_weights.EPSILON,
        mean=keras_weights.MEAN,
        std=keras_weights.STD,
        size=keras_weights.size_in_name(path) or published_size(backbone),
        origin=path.name,
        licence=licence,
        architecture=backbone,
        digest=_digest(tensors),
    )


def _neighbour(path: Path) -> str:
    """Return a hint at what a missing path may have meant, '' if there is none."""
    if REPOSITORY.fullmatch(f"hf-hub:{path.as_posix()}"):
        return f"for the Hugging Face hub's say hf-hub:{path.as_posix()}; "
    beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"there is '{path.parent / near[0]}'; " if near else ""


def _or_bundled(backbone: str) -> str:
    """Return advice to start from the embedded network, '' if it has another backbone."""
    fits = without_tag(backbone) == embedded.BACKBONE
    return f", or start from the embedded network with --weights {BUNDLED}" if fits else ""


def _require_mobilenet(name: str, backbone: str) -> None:
    if without_tag(backbone) != keras_layers.BACKBONE:
        raise WeightsError(
            f"--weights '{name}': Keras's weights are read for backbone "
            f"'{keras_layers.BACKBONE}' only; for '{backbone}' take timm's, or others' of PyTorch"
        )


def fill(network: Network, weights: Weights, name: str) -> None:
    """Copy the weights into every layer but the head.

    Other libraries' names are translated to timm's, and position embeddings are resampled to the
    network's size.
    Raises WeightsError naming the first tensor that does not fit or has impossible values.
    """
    own = _trunk_only(network.net.state_dict(), network.head_name)
    misfits: list[_Misfit] = []
    for tensors in readings(network, weights.tensors):
        given = _trunk_only(tensors, network.head_name)
        misfit = _Misfit.of(own, given)
        if not misfit.count:
            _check_values(given, name)
            network.net.load_state_dict(given, strict=False)
            return
        misfits.append(misfit)
    nearest = min(misfits, key=lambda misfit: misfit.count)
    raise WeightsError(
        f"--weights '{name}' do not fit backbone '{network.backbone}': {nearest.told}; "
        f"{_remedy(name, weights.tensors)}"
    )


def _remedy(name: str, tensors: dict[str, torch.Tensor]) -> str:
    """Return advice on weights that do not fit: the backbone that their shapes or name suggest."""
    told = " or ".join(recognised(tensors)) or named_in(Path(name).name)
    if told:
        return f"they look like those of --backbone {told}"
    return "say their network with --backbone; `thawnet backbones WORD` lists those with a name"


@dataclass(frozen=True)
class _Misfit:
    """The differences between tensors and those that a network expects."""

    missing: list[str]
    foreign: list[str]
    wrong: list[str]

    @classmethod
    def of(cls, own: dict[str, torch.Tensor], given: dict[str, torch.Tensor]) -> _Misfit:
        return cls(
            missing=[key for key in own if key not in given],
            foreign=[key for key in given if key not in own],
            wrong=[
                f"{key} is {tuple(given[key].shape)}, expected {tuple(value.shape)}"
                for key, value in own.items()
                if key in given and given[key].shape != value.shape
            ],
        )

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.foreign) + len(self.wrong)

    @property
    def told(self) -> str:
        """The first misfit of each kind, and how many there are."""
        first = [f"no tensor '{key}'" for key in self.missing[:1]]
        first += [f"unknown tensor '{key}'" for key in self.foreign[:1]]
        first += self.wrong[:1]
        return (
            f"{', '.join(first)}; {len(self.missing)} missing, {len(self.foreign)} unknown, "
            f"{len(self.wrong)} of another shape"
        )


def _check_values(tensors: dict[str, torch.Tensor], name: str) -> None:
    """Raise WeightsError for values that no trained network has."""
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise WeightsError(
                f"--weights '{name}': tensor '{key}' is of {value.dtype}, expected floating point; "
                "weights that are quantised have to be converted first"
            )
        if not torch.isfinite(value).all():
            raise WeightsError(f"--weights '{name}': tensor '{key}' holds NaN or infinity")
        if key.endswith("running_var") and (value < 0).any():
            raise WeightsError(f"--weights '{name}': tensor '{key}' holds negative variances")
    if not any(value.any() for value in tensors.values() if value.dim() > 1):
        raise WeightsError(f"--weights '{name}': all of them are zero; the file holds no network")


def _trunk_only(tensors: dict[str, torch.Tensor], head: str) -> dict[str, torch.Tensor]:
    """Return the tensors without the head and the batch-norms' counters, which nothing reads."""
    return {
        key: value
        for key, value in tensors.items()
        if not key.startswith(f"{head}.") and not key.endswith("num_batches_tracked")
    }


def _in_float(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        key: value.float() if value.is_floating_point() else value for key, value in tensors.items()
    }


def published_size(backbone: str) -> int:
    """Return the input size in pixels that timm's own weights for a backbone were trained at."""
    return int(_published(backbone).input_size[-1])


def _published(backbone: str) -> PretrainedCfg:
    """Return timm's config of its own weights for a backbone, or timm's defaults if it has none."""
    import timm
    from timm.models import PretrainedCfg

    return timm.get_pretrained_cfg(backbone) or PretrainedCfg()


def _padding(text: str) -> str:
    if text not in PADDINGS:
        raise ValueError(f"pad_type '{text}'")
    return text


def _names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("classes is no list of names")
    if len(set(names)) < len(names):
        raise ValueError("classes names one twice")
    return tuple(names)


def _triple(text: str, above: float = -math.inf) -> tuple[float, float, float]:
    return _three(_within(float(word), above, math.inf) for word in text.split(","))


def _within(value: N, above: float, most: float) -> N:
    if not (above < value <= most and math.isfinite(value)):
        raise ValueError(f"{value} is out of range")
    return value


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
