"""Weights made to hurt, as --weights takes them and as a bundle holds them."""

from __future__ import annotations

import json
import shutil
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from support.runs import TINY
from thawnet.bundle.format import read_description
from thawnet.core.errors import BundleError, WeightsError
from thawnet.core.files import sha256_file
from thawnet.export.pt2 import rebuild
from thawnet.model.backbone import Network
from thawnet.model.weights import fill, load_weights


def raw(header: object, data: bytes = bytes(64), length: int | None = None) -> bytes:
    """Return a safetensors file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: int, end: int, kind: str = "F32", shape: Sequence[int] = (4,)) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        raw({}, b"", 2**63),
        raw({}, b"", 2**40),
        raw({}, b"", 10**8 + 1),
        raw({"a": tensor(0, 16), "b": tensor(8, 24)}),  # overlapping
        raw({"a": tensor(0, 16), "b": tensor(32, 48)}),  # a gap
        raw({"a": tensor(0, 16)}),  # bytes that are nobody's
        raw({"a": tensor(0, 2**40, shape=(2**38,))}),
        raw({"a": tensor(0, 16, shape=(2**63 - 1, 9))}, bytes(16)),
        raw({"a": tensor(16, 0)}, bytes(16)),
        raw({"a": tensor(0, 16, "F99")}, bytes(16)),
        raw({"a": tensor(0, 16, "F4", (32,))}, bytes(16)),
        raw({"a": {"dtype": "F32"}}, b""),
        raw(b"[" * 100_000, b""),
        raw({"__metadata__": {"a": 1}}, b""),
        save({"a": torch.ones(4)})[:-1],
        save({"a": torch.ones(4)})[:20],
    ],
)  # fmt: skip
def test_safetensors_that_lie_take_no_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    network = Network(TINY, 3, 96)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError) as caught:
            fill(network, load_weights(str(path), TINY), "x")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert most < 2**24


@pytest.mark.parametrize(
    "kind", [torch.int8, torch.uint8, torch.bool, torch.int64, torch.complex64]
)
def test_weights_of_another_kind_are_named(
    tiny_weights: Path, tmp_path: Path, kind: torch.dtype
) -> None:
    tensors = load_file(tiny_weights)
    tensors["conv_stem.weight"] = tensors["conv_stem.weight"].to(kind)
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"pad_type": "same"})
    with pytest.raises(
        WeightsError, match=r"'conv_stem.weight' is of torch.\w+, expected floating"
    ):
        fill(Network(TINY, 3, 96, "same"), load_weights(str(path), TINY), "x")


@pytest.mark.parametrize(
    "kind", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn]
)
def test_weights_in_another_precision_are_read(
    tiny_weights: Path, tmp_path: Path, kind: torch.dtype
) -> None:
    tensors = {name: value.to(kind) for name, value in load_file(tiny_weights).items()}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"pad_type": "same"})
    fill(Network(TINY, 3, 96, "same"), load_weights(str(path), TINY), "x")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        *(
            ({name: value}, "its metadata is not understood")
            for name, value in [
                *(("mean", "a,b,c"), ("mean", "0.5"), ("mean", "nan,0,0"), ("std", "0,0,0")),
                *(("bn_eps", "-1"), ("bn_eps", "inf")),
                *(("input_size", "-5"), ("input_size", "9" * 5000)),
            ]
        ),
        ({"architecture": "evil\x1b[2J"}, r"are of evil\?\[2J, not of test_efficientnet"),
    ],
)
def test_metadata_that_would_do_harm_are_refused(
    tiny_weights: Path, tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_file(load_file(tiny_weights), path, metadata=metadata)
    with pytest.raises(WeightsError, match=message):
        load_weights(str(path), TINY)


def first_of(kind: torch.dtype, *shape: int) -> Callable[[Path], object]:
    """Return what gives the first layer of a file another kind and shape."""

    def spoil(file: Path) -> None:
        save_file(load_file(file) | {"conv_stem.weight": torch.zeros(shape).to(kind)}, file)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        first_of(torch.float32, 32, 3, 3, 4),
        lambda file: file.write_bytes(raw({}, b"", 2**63)),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(raw({"a": tensor(0, 16, "F4", (32,))})),
    ],
)
def test_network_of_a_bundle_is_rebuilt_from_what_fits_only(
    bundle: Path, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    spoil(copy / "model.safetensors")
    description = json.loads((copy / "model.json").read_text())
    description["sha256"]["model.safetensors"] = sha256_file(copy / "model.safetensors")
    (copy / "model.json").write_text(json.dumps(description))
    with pytest.raises(BundleError, match=f"does not fit {TINY}") as caught:
        rebuild(read_description(copy))
    assert str(caught.value).isprintable()
