"""PyTorch weights in the files and folders that users have, recognised by content, not name."""

from __future__ import annotations

import argparse
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..core.errors import WeightsError, first_line
from ..core.text import unfinished

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
CONFIG = "config.json"
PIXELS = "preprocessor_config.json"  # of transformers
# Weight files of a bundle, a run or a Hugging Face folder, in order of preference.
FOLDER_FILES = (
    *("model.safetensors", "bundle/model.safetensors", "pytorch_model.bin"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
)
# Keys under which training scripts save the network; averaged weights are preferred.
WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model"),
    *("module", "net", "teacher", "params"),
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".h5", ".keras")
MOST_NAMED = 5  # files of a folder listed in an error
LARGEST_CONFIG = 2**20  # bytes


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file and their metadata."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    """As in a bundle's model.safetensors: architecture, mean, std, input_size, pad_type, ..."""


def read_weights_file(path: Path) -> WeightsFile:
    """Read a PyTorch or safetensors file, a run, a bundle or a Hugging Face folder.

    No code in a file is run. Raises WeightsError when no tensors can be read without that.
    """
    if path.is_dir():
        return _folder(path)
    head = _head(path)
    # A safetensors file starts with its header's length in 8 bytes, which may look like a pickle.
    if head.startswith((ZIP, PICKLE)) and head[8:] != b"{":
        return WeightsFile(_torch(path), {})
    return _safetensors(path)


def stated_architecture(path: Path) -> str:
    """Return the backbone that a safetensors file, folder, run or bundle names, '' if none."""
    files = [path / name for name in FOLDER_FILES] if path.is_dir() else [path]
    stated = _config(path).get("architecture", "") if path.is_dir() else ""
    for file in files:
        if file.is_file() and not stated:
            with suppress(SafetensorError, OSError), safe_open(file, framework="pt") as opened:
                stated = (opened.metadata() or {}).get("architecture", "")
    return stated


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(9)


def _folder(path: Path) -> WeightsFile:
    for name in FOLDER_FILES:
        if (path / name).is_file():
            found = read_weights_file(path / name)
            return WeightsFile(found.tensors, {**found.metadata, **_config(path)})
    if (path / "checkpoint").is_dir():
        raise WeightsError(f"--weights: {unfinished(path)}")
    if (path / "model.onnx").is_file():
        raise WeightsError(
            f"--weights '{path}': a bundle of a quantised network, which cannot be trained; give "
            "the run or bundle that it was made from"
        )
    inside = sorted(file for file in path.iterdir() if _is_weights(file))
    files = [f"'{file.name}'" for file in inside[:MOST_NAMED]]
    files += ["..."] if len(inside) > MOST_NAMED else []
    raise WeightsError(
        f"--weights '{path}': the folder holds none of {', '.join(FOLDER_FILES)}; give a run, a "
        "bundle, a folder as the Hugging Face hub has it, or a file"
        + (f", as {', '.join(files)} in it" if files else "")
    )


def _is_weights(path: Path) -> bool:
    """Return whether a path may hold weights, judging by its suffix or the files in it."""
    return path.suffix in SUFFIXES or any((path / name).is_file() for name in FOLDER_FILES)


def _safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
    # A dtype that torch lacks raises KeyError, and one that it cannot read RuntimeError.
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(
            f"--weights '{path}': not a readable file of safetensors, PyTorch or Keras "
            f"({first_line(error)})"
        ) from error
    return WeightsFile(tensors, metadata)


def _torch(path: Path) -> dict[str, torch.Tensor]:
    try:
        # Training scripts often save their arguments too, which are harmless.
        with (
            torch.serialization.safe_globals([argparse.Namespace]),
            path.open("rb") as file,  # given a path, torch would go by its suffix
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # about old pickles; unreadable ones raise
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        more = isinstance(error, pickle.UnpicklingError)  # its text advises running the code
        reason = "it asks for more than tensors" if more else first_line(error)
        raise WeightsError(
            f"--weights '{path}': PyTorch reads no plain tensors from it ({reason}); "
            "code in it is not run here: where you trust it, torch.save(torch.load(FILE, "
            "weights_only=False).state_dict(), OTHER) makes a file that is read"
        ) from error
    tensors = next(_dictionaries(content), None)
    if tensors is None:
        raise WeightsError(
            f"--weights '{path}': it holds {type(content).__name__}, expected a dictionary of "
            "tensors, as state_dict() gives"
        )
    return tensors


def _dictionaries(content: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the dictionaries of tensors in the content of a training script's checkpoint."""
    if not isinstance(content, Mapping):
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if len(tensors) > len(content) / 2:
        yield tensors
    for name in WRAPPERS:
        if name in content:
            yield from _dictionaries(content[name])


def _config(folder: Path) -> dict[str, str]:
    """Return the metadata of the weights in a Hugging Face folder."""
    config = _json(folder / CONFIG)
    published = config.get("pretrained_cfg")
    published = published if isinstance(published, dict) else config
    images = _json(folder / PIXELS)
    facts = {
        "architecture": config.get("architecture"),
        "mean": published.get("mean") or images.get("image_mean"),
        "std": published.get("std") or images.get("image_std"),
        "input_size": published.get("input_size") or config.get("image_size"),
        "license": published.get("license"),
        "source": published.get("hf_hub_id"),
    }
    if isinstance(facts["input_size"], list) and facts["input_size"]:
        facts["input_size"] = facts["input_size"][-1]
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in facts.items()
        if value
    }


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"--weights: '{path}' is not JSON ({first_line(error)})") from error
    return content if isinstance(content, dict) else {}
