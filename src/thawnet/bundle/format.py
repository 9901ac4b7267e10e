"""What lies in a bundle, how it is written, and what is checked when it is opened."""

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
from ..core.text import shown
from .meaning import Meaning, parse_meaning, require_text

if TYPE_CHECKING:
    import torch

VERSION = 5
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
DESCRIPTION = "model.json"
TRAINED_ON = "trained_on.bin"
CARD = "README.md"
RUN_BUNDLE = "bundle"  # where it lies in a run folder

MAX_DESCRIPTION = 16 * 2**20  # bytes; 20,000 class names take less than one million
MAX_FILE = 2**31  # bytes; protobuf's own limit


@dataclass(frozen=True)
class Description:
    """What model.json says of the network beside it.

    path: the bundle. backbone: timm's name. padding: '' (the model's own) or 'same'
    (TensorFlow's). epsilon: of every batch-norm, None for the model's own. class_weights: which
    tensor of model.safetensors makes class maps of the feature map, None where none does. sha256:
    of the files beside it, by name. facts: the rest, as it stands there, unchecked.
    """

    path: Path
    backbone: str
    padding: str
    epsilon: float | None
    class_weights: str | None
    meaning: Meaning
    sha256: dict[str, str]
    facts: dict[str, Any]

    @property
    def architecture(self) -> dict[str, Any]:
        """What rebuilds the network, as `write_bundle` takes it."""
        return {
            "backbone": self.backbone,
            "padding": self.padding,
            "epsilon": self.epsilon,
            "class_weights": self.class_weights,
        }


def write_bundle(
    path: Path,
    tensors: Mapping[str, torch.Tensor] | None,
    onnx: bytes | None,
    architecture: Mapping[str, Any],
    meaning: Meaning,
    trained_on: NDArray[np.uint64],
    facts: Mapping[str, Any],
    card: str,
) -> None:
    """Write a new bundle, whole or not at all; the same content gives the same bytes.

    tensors: in timm's names, head included; None of a quantised network, which has no weights but
    those in its ONNX model. onnx: see export.to_onnx; None where a backbone cannot be exported.
    architecture: backbone, padding, epsilon, class_weights. trained_on: see `short_hashes`. facts:
    recipe, metrics, provenance, for people. card: the text of README.md.
    """
    preprocess = meaning.preprocess
    metadata = {
        "format": "pt",
        "architecture": str(architecture["backbone"]),
        "pad_type": str(architecture["padding"]),
        "input_size": str(preprocess.size),
        "mean": ",".join(map(repr, preprocess.mean)),
        "std": ",".join(map(repr, preprocess.std)),
    }
    if architecture["epsilon"] is not None:
        metadata["bn_eps"] = repr(architecture["epsilon"])
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
                "architecture": dict(architecture),
                "classes": list(meaning.classes),
                "preprocess": preprocess.as_dict(),
                "temperature": meaning.temperature,
                "unfamiliar": meaning.unfamiliar and asdict(meaning.unfamiliar),
                "sha256": {name: sha256_file(folder / name) for name in names},
                **facts,
            },
        )


def describe_bundle(path: Path, facts: Mapping[str, Any], card: str) -> None:
    """Replace what a bundle that was just written says for people: its facts and its card."""
    content = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    write_text(path / CARD, card)
    write_json(path / DESCRIPTION, {**content, **facts})


def write_safetensors(
    file: IO[bytes], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors so that equal ones give equal bytes.

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
    """Return the first 8 bytes of SHA-256 hashes, (n, 32), sorted and each once, (k,).

    With 50,000 of them, an image that is none of them is taken for one once in 10^14 times.
    """
    return np.unique(_beginnings(hashes))


def are_among(hashes: NDArray[np.uint8], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which images, by their SHA-256 hashes, (n, 32), are in `known`, `short_hashes`."""
    return np.isin(_beginnings(hashes), known)


def _beginnings(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    numbers: NDArray[np.uint64] = np.ascontiguousarray(hashes[:, :8]).view("<u8").ravel()
    return numbers


def read_description(path: Path) -> Description:
    """Return what a bundle, or the bundle of a run folder, says of itself.

    Raises BundleError when there is none or it cannot be understood.
    """
    folder = path if (path / DESCRIPTION).is_file() else path / RUN_BUNDLE
    file = folder / DESCRIPTION
    if not file.is_file():
        what = "holds no bundle" if path.is_dir() else "no such folder"
        raise BundleError(
            f"'{path}': {what}; give a finished run, as in runs/digits-quick-1, or its bundle/"
        )
    content = _object(_limited(file, MAX_DESCRIPTION), file)
    version = content.pop("format", None)
    if version != VERSION:
        raise BundleError(
            f"'{file}': format {shown(version)}, and this thawnet reads format {VERSION}; "
            "train again, or use the thawnet that wrote it"
        )
    try:
        architecture = content.pop("architecture")
        return Description(
            path=folder,
            backbone=_backbone(architecture["backbone"]),
            padding=require_text(architecture["padding"]),
            epsilon=_epsilon(architecture["epsilon"]),
            class_weights=_class_weights(architecture["class_weights"]),
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
        told = first_line(error)
        raise BundleError(f"'{file}' is not understood ({told}); the file is damaged") from error


def read_onnx(description: Description) -> bytes:
    """Return model.onnx of a bundle. Raises BundleError unless it is the file that was written."""
    if ONNX not in description.sha256:
        raise BundleError(
            f"'{description.path}' holds no {ONNX}: {description.backbone} could not be exported; "
            "train another backbone to predict with"
        )
    return _described(description, ONNX)


def read_weights(description: Description) -> bytes:
    """Return model.safetensors of a bundle. Raises BundleError as `read_onnx` does."""
    require_weights(description)
    return _described(description, WEIGHTS)


def require_weights(description: Description) -> None:
    """Raise BundleError for a quantised bundle, which has no float32 weights."""
    if WEIGHTS not in description.sha256:
        raise BundleError(
            f"'{description.path}' holds no {WEIGHTS}: its network is quantised; "
            "give the run or bundle that it was made from"
        )


def read_trained_on(description: Description) -> NDArray[np.uint64]:
    """Return the `short_hashes` of the images that a network was trained or chosen on.

    Raises BundleError as `read_onnx` does.
    """
    content = _described(description, TRAINED_ON)
    if len(content) % 8:
        raise BundleError(
            f"'{description.path / TRAINED_ON}' is no list of hashes ({len(content):,} bytes); "
            "copy the bundle again"
        )
    return np.frombuffer(content, "<u8")


def _described(description: Description, name: str) -> bytes:
    file = description.path / name
    content = _limited(file, MAX_FILE)
    found, wanted = hashlib.sha256(content).hexdigest(), description.sha256.get(name, "nothing")
    if found != wanted:
        raise BundleError(
            f"'{file}' is not the file that {DESCRIPTION} describes (SHA-256 {found[:12]}..., "
            f"expected {wanted[:12]}...); copy the bundle again"
        )
    return content


def _limited(file: Path, limit: int) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
            raise BundleError(f"'{file}' is not a file; copy the bundle again")
        if status.st_size > limit:
            raise BundleError(
                f"'{file}' holds {status.st_size / 1e6:,.0f} MB; "
                f"at most {limit / 1e6:,.0f} MB are read"
            )
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"'{file}' cannot be read ({error.strerror})") from error


def _object(content: bytes, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"'{file}' is not JSON ({error}); the file is damaged") from error
    if not isinstance(found, dict):
        raise BundleError(f"'{file}' holds no JSON object; the file is damaged")
    return found


def _backbone(value: Any) -> str:
    # `thawnet export` names a file after it, and PyTorch's network is built by it.
    if not re.fullmatch(r"\w[\w.-]{0,99}", require_text(value), re.ASCII):
        raise ValueError(f"backbone must be the name of a model in timm, received {shown(value)}")
    return str(value)


def _epsilon(value: Any) -> float | None:
    if value is not None and (type(value) is not float or not 0 < value < 1):
        raise ValueError(f"epsilon must be between 0 and 1, or null, received {shown(value)}")
    return value


def _class_weights(value: Any) -> str | None:
    return None if value is None else require_text(value)
