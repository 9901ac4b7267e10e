"""The files of a bundle: written whole, and checked when read."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BundleError, first_line
from ..core.files import new_folder, sha256_file, write_json, write_text
from ..core.text import shown, unfinished
from .meaning import Meaning, parse_meaning, require_text

if TYPE_CHECKING:
    import torch

VERSION = 5
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
DESCRIPTION = "model.json"
TRAINED_ON = "trained_on.bin"
CARD = "README.md"
RUN_BUNDLE = "bundle"  # the bundle's folder in a run folder

MAX_DESCRIPTION = 16 * 2**20  # bytes; 20,000 class names take less than one million
MAX_FILE = 2**31  # bytes; protobuf's own limit


@dataclass(frozen=True)
class Architecture:
    """The values that rebuild the network from model.safetensors."""

    backbone: str
    """timm's name."""
    padding: str
    """'' for the model's own, 'same' for TensorFlow's."""
    epsilon: float | None
    """Of every batch-norm; None for the model's own."""
    class_weights: str | None
    """Name of the tensor that turns the feature map into class maps, None if there is none."""


@dataclass(frozen=True)
class Description:
    """The content of model.json."""

    path: Path
    """The bundle's folder."""
    architecture: Architecture
    meaning: Meaning
    sha256: dict[str, str]
    """Of the files beside model.json, by name."""
    facts: dict[str, Any]
    """All other fields, unchecked."""


def write_bundle(
    path: Path,
    tensors: Mapping[str, torch.Tensor] | None,
    onnx: bytes | None,
    architecture: Architecture,
    meaning: Meaning,
    trained_on: NDArray[np.uint64],
    facts: Mapping[str, Any],
    card: str,
) -> None:
    """Write a new bundle, whole or not at all; the same content gives the same bytes.

    tensors: under timm's names, head included; None for a quantised network, whose weights are only
    in its ONNX model. onnx: see onnx.to_onnx; None where the backbone cannot be exported.
    trained_on: see `short_hashes`. facts: recipe, metrics, provenance, for people. card: README.md.
    """
    preprocess = meaning.preprocess
    metadata = {
        "format": "pt",
        "architecture": architecture.backbone,
        "pad_type": architecture.padding,
        "input_size": str(preprocess.size),
        "mean": ",".join(map(repr, preprocess.mean)),
        "std": ",".join(map(repr, preprocess.std)),
        "classes": json.dumps(meaning.classes),
    }
    if architecture.epsilon is not None:
        metadata["bn_eps"] = repr(architecture.epsilon)
    metadata |= {key: str(facts[key]) for key in ("source", "license") if key in facts}
    with new_folder(path) as folder:
        if tensors is not None:
            with (folder / WEIGHTS).open("wb") as file:
                write_safetensors(file, tensors, metadata)
        if onnx is not None:
            (folder / ONNX).write_bytes(onnx)
        (folder / TRAINED_ON).write_bytes(trained_on.astype("<u8").tobytes())
        write_text(folder / CARD, card)
        names = [name for name in (WEIGHTS, ONNX, TRAINED_ON) if (folder / name).exists()]
        write_json(
            folder / DESCRIPTION,
            {
                "format": VERSION,
                "architecture": asdict(architecture),
                "classes": list(meaning.classes),
                "preprocess": preprocess.as_dict(),
                "temperature": meaning.temperature,
                "unfamiliar": meaning.unfamiliar and asdict(meaning.unfamiliar),
                "sha256": {name: sha256_file(folder / name) for name in names},
                **facts,
            },
        )


def describe_bundle(path: Path, facts: Mapping[str, Any], card: str) -> None:
    """Replace the facts and the card of a newly written bundle."""
    content = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    write_text(path / CARD, card)
    write_json(path / DESCRIPTION, {**content, **facts})


def write_safetensors(
    file: IO[bytes], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors such that equal input gives equal bytes.

    The library itself writes metadata in the random order of a Rust HashMap. Layout: the length
    of the header in 8 bytes, little endian; the header, JSON padded with spaces to a multiple of
    8; the tensors, at offsets that count from the header's end.
    (https://huggingface.co/docs/safetensors, "Format")
    """
    from safetensors.torch import save

    written = memoryview(save(dict(tensors), dict(metadata)))
    end = 8 + int.from_bytes(written[:8], "little")
    header = json.loads(bytes(written[8:end]))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    file.write(written[end:])


def short_hashes(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first 8 bytes of SHA-256 hashes, (n, 32), sorted and without duplicates, (k,).

    With 50,000 of them, another image is mistaken for one of them once in 10^14 times.
    """
    return np.unique(_beginnings(hashes))


def are_among(hashes: NDArray[np.uint8], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which images' SHA-256 hashes, (n, 32), are among the `short_hashes` in `known`."""
    return np.isin(_beginnings(hashes), known)


def _beginnings(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    numbers: NDArray[np.uint64] = np.ascontiguousarray(hashes[:, :8]).view("<u8").ravel()
    return numbers


def read_description(path: Path) -> Description:
    """Return the description of a bundle, or of the bundle in a run folder.

    Raises BundleError when there is none or it is invalid.
    """
    folder = path if (path / DESCRIPTION).is_file() else path / RUN_BUNDLE
    file = folder / DESCRIPTION
    if not file.is_file():
        if (path / "checkpoint").is_dir():
            raise BundleError(unfinished(path))
        reason = "holds no bundle" if path.is_dir() else "no such folder"
        if path.is_file():
            reason = "this is a file; unpack it, if it is an archive"
        raise BundleError(
            f"'{path}': {reason}; give a finished run, as in runs/digits-quick-1, or its bundle/"
        )
    try:
        content = json.loads(_read(file, MAX_DESCRIPTION))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"'{file}' is not JSON ({error}); the file is damaged") from error
    if not isinstance(content, dict):
        raise BundleError(f"'{file}' holds no JSON object; the file is damaged")
    version = content.pop("format", None)
    if version != VERSION:
        raise BundleError(
            f"'{file}': format {shown(version)}, and this thawnet reads format {VERSION}; "
            "train again, or use the thawnet that wrote it"
        )
    try:
        return Description(
            path=folder,
            architecture=_architecture(content.pop("architecture")),
            meaning=parse_meaning(content),
            sha256={
                require_text(key): require_text(value)
                for key, value in content.pop("sha256").items()
            },
            facts=content,
        )
    except KeyError as error:
        raise BundleError(f"'{file}': the field {error} is missing; the file is damaged") from None
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        reason = first_line(error)
        raise BundleError(f"'{file}' is not understood ({reason}); the file is damaged") from error


def read_onnx(description: Description) -> bytes:
    """Return a bundle's model.onnx; raise BundleError unless it is the file that was written."""
    if ONNX not in description.sha256:
        raise BundleError(
            f"'{description.path}' holds no {ONNX}: {description.architecture.backbone} could not "
            "be exported; train another backbone to predict with"
        )
    return _read_described(description, ONNX)


def read_weights(description: Description) -> bytes:
    """Return a bundle's model.safetensors; raise BundleError as `read_onnx` does."""
    require_weights(description)
    return _read_described(description, WEIGHTS)


def require_weights(description: Description) -> None:
    """Raise BundleError for a quantised bundle, which has no float32 weights."""
    if WEIGHTS not in description.sha256:
        raise BundleError(
            f"'{description.path}' holds no {WEIGHTS}: its network is quantised; "
            "give the run or bundle that it was made from"
        )


def read_trained_on(description: Description) -> NDArray[np.uint64]:
    """Return the `short_hashes` of the images that a network was trained or selected on.

    Raises BundleError as `read_onnx` does.
    """
    content = _read_described(description, TRAINED_ON)
    if len(content) % 8:
        raise BundleError(
            f"'{description.path / TRAINED_ON}' is no list of hashes ({len(content):,} bytes); "
            "copy the bundle again"
        )
    return np.frombuffer(content, "<u8")


def _read_described(description: Description, name: str) -> bytes:
    file = description.path / name
    content = _read(file, MAX_FILE)
    digest, expected = hashlib.sha256(content).hexdigest(), description.sha256.get(name, "nothing")
    if digest != expected:
        raise BundleError(
            f"'{file}' is not the file that {DESCRIPTION} describes (SHA-256 {digest[:12]}..., "
            f"expected {expected[:12]}...); copy the bundle again"
        )
    return content


def _read(file: Path, limit: int) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block forever
            raise BundleError(f"'{file}' is not a file; copy the bundle again")
        if status.st_size > limit:
            raise BundleError(
                f"'{file}' holds {status.st_size / 1e6:,.0f} MB; "
                f"at most {limit / 1e6:,.0f} MB are read"
            )
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"'{file}' cannot be read ({error.strerror})") from error


def _architecture(values: Any) -> Architecture:
    backbone, epsilon = values["backbone"], values["epsilon"]
    # `thawnet export` names a file after it, and timm builds PyTorch's network from it.
    if not re.fullmatch(r"\w[\w.-]{0,99}", require_text(backbone), re.ASCII):
        raise ValueError(
            f"backbone must be the name of a model in timm, received {shown(backbone)}"
        )
    if epsilon is not None and (type(epsilon) is not float or not 0 < epsilon < 1):
        raise ValueError(f"epsilon must be between 0 and 1, or null, received {shown(epsilon)}")
    tensor = values["class_weights"]
    return Architecture(
        backbone,
        require_text(values["padding"]),
        epsilon,
        None if tensor is None else require_text(tensor),
    )
