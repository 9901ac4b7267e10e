"""Bundles made to hurt: foreign graphs, files that lie about themselves, odd names.

A model.json whose fields are wrong, spoilt files and limits of size: tests/bundle/test_format.py.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

import thawnet
from support.fuzz import bundle
from support.fuzz.bundle import FEATURES, LOGITS, network, weight, write_bundle
from support.systems import POSIX
from thawnet.bundle.format import read_description, read_trained_on
from thawnet.cli import main
from thawnet.core.errors import BundleError, UsageError
from thawnet.core.files import sha256_file
from thawnet.core.text import from_cell
from thawnet.model.backbone import Network

IMAGE = Image.new("RGB", (9, 9), "red")


def changed(folder: Path, **values: Any) -> Path:
    """Set fields of model.json."""
    file = folder / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return folder


def refused(folder: Path, message: str) -> None:
    """Check that a bundle is refused in a sentence: when it is opened, or when it predicts."""
    with pytest.raises(BundleError, match=message) as caught:
        thawnet.load(folder).predict([IMAGE])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 2100


# --- model.onnx -----------------------------------------------------------------------------------


def test_smallest_bundle_is_one(tmp_path: Path) -> None:
    for convolution in (False, True):
        folder = write_bundle(tmp_path / str(convolution), network(convolution=convolution))
        (prediction,) = thawnet.load(folder).predict([IMAGE])
        assert prediction.probabilities == (0.5, 0.5)


@pytest.mark.parametrize(
    "location", ["weights.bin", "{here}/weights.bin", "../weights.bin", "model.onnx"]
)
def test_weights_outside_the_file_are_not_read(tmp_path: Path, location: str) -> None:
    np.ones(6, np.float32).tofile("weights.bin")  # in the working folder
    np.ones(6, np.float32).tofile("../weights.bin")
    outside = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[3, 2])
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", location.format(here=Path.cwd())),
        ("offset", "0"),
        ("length", "24"),
    ):
        outside.external_data.add(key=key, value=value)
    folder = write_bundle(tmp_path / "bundle", network(weights=[outside]))
    np.ones(6, np.float32).tofile(folder / "weights.bin")
    refused(folder, "cannot open the network .*External data path")


EVIL = helper.make_node("Evil", ["features"], ["logits"], domain="org.example")
TWICE = [
    helper.make_node("MatMul", ["features", "weight"], ["once"]),
    helper.make_node("Concat", ["once", "once"], ["logits"], axis=0),
]
HUGE = [
    helper.make_node("MatMul", ["features", "weight"], ["small"]),
    helper.make_node("Shape", ["small"], ["shape"]),
    helper.make_node("Mul", ["shape", "factor"], ["sides"]),
    helper.make_node("ConstantOfShape", ["sides"], ["large"]),
    helper.make_node("ReduceMax", ["large"], ["most"], keepdims=0),
    helper.make_node("Add", ["small", "most"], ["logits"]),
]
FACTOR = helper.make_tensor("factor", TensorProto.INT64, [2], [10**6, 10**6])


@pytest.mark.parametrize(
    ("nodes", "weights", "message"),
    [
        ([*FEATURES, EVIL], [], "cannot open the network"),
        ([*FEATURES, *TWICE], [weight()], r"gives \{'logits': \(2, 2\)\} for 1 image,"),
        ([*FEATURES, LOGITS], [weight(value=float("nan"))], "no finite numbers"),
        ([*FEATURES, LOGITS], [weight(value=float("inf"))], "no finite numbers"),
        ([*FEATURES, LOGITS], [weight(shape=(3, 5))], "cannot open the network|takes and gives"),
        ([*FEATURES, LOGITS], [weight(shape=(4, 2))], "cannot (open|be computed)"),
        ([*FEATURES, *HUGE], [weight(), FACTOR], r"cannot be computed \(.*(alloc|memory)"),
        ([LOGITS], [weight()], "cannot open the network"),
    ],
)
def test_foreign_graph_is_refused_when_opened_or_computed(
    tmp_path: Path, nodes: Sequence[Any], weights: Sequence[Any], message: str
) -> None:
    refused(write_bundle(tmp_path / "bundle", network(nodes, weights)), message)


def test_names_in_a_graph_that_are_no_text_are_a_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in (b"features", b"thawnet.classes"):
        content = network().replace(name, b"\xff" * len(name))
        refused(write_bundle(tmp_path / "bundle", content), "cannot open the network")
    assert capfd.readouterr().out == ""  # where results go


# --- model.json -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "is not JSON"),
        (b'{"format": 5, "classes":' + b'{"a":' * 100_000, "is not JSON"),
        (b'{"format": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"format": "' + b"x" * 10**6 + b'"}', r"format 'x+\.\.\.x+', and this thawnet reads"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b'{"format": 5}' + b" " * (16 * 2**20), "at most 17 MB are read"),
    ],
)
def test_deep_or_huge_description_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    folder = write_bundle(tmp_path / "bundle", network())
    (folder / "model.json").write_bytes(content)
    refused(folder, message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ["a", "x" * 10_000]}, "class 'x{40}...' has 10,000 characters, over 1,000"),
        ({"classes": ["a", "b\x1b[31m"]}, r"class 'b\?\[31m' has control or broken characters"),
        ({"classes": ["a", "\ud800"]}, r"class '\?' has control or broken characters"),
        ({"classes": "ab"}, "expected two or more different class names"),
        ({"classes": [["x"] * 10**5, "b"]}, r"expected text, received \['x', 'x'.*\.\.\.\]"),
        ({"temperature": 10**400}, "temperature must be 0.01 to 100, received 1000"),
        (
            {"architecture": {"backbone": "../../x", "padding": "", "epsilon": None}},
            "name of a model",
        ),
        ({"architecture": {"backbone": "hf-hub:a/b", "padding": "", "epsilon": None}}, "name of a"),
        ({"architecture": {"backbone": "x" * 10_000, "padding": "", "epsilon": None}}, "name of a"),
    ],
)
def test_values_that_would_do_harm_are_refused(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    refused(changed(write_bundle(tmp_path / "bundle", network()), **values), message)


def test_zero_deviation_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", network())
    preprocess = json.loads((folder / "model.json").read_text())["preprocess"]
    for std in (
        [0.0, 0.5, 0.5],
        [-1.0, 0.5, 0.5],
        [1e999, 1, 1],
        ["x" * 10**5, 1, 1],
        [10**400, 1, 1],
    ):
        changed(folder, preprocess={**preprocess, "std": std})
        refused(folder, "std must be above 0|three finite numbers|is not understood")


def test_class_names_are_text_in_every_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from thawnet.bundle.meaning import Meaning

    names = ("<script>alert(1)</script>", "=cmd|' /c calc'!A1, \"[red]\u200f")
    meaning = Meaning(names, bundle.MEANING.preprocess, 1.0)
    monkeypatch.setattr(bundle, "MEANING", meaning)
    folder = write_bundle(tmp_path / "bundle", network())
    IMAGE.save("one.png")
    for form in ("--json", "--csv"):
        assert main(["predict", "one.png", "--model", str(folder), form]) == 0
        out = capsys.readouterr().out
        if form == "--json":
            rows = json.loads(out)["predictions"]
            assert {row["class"] for row in rows} == set(names)
        else:
            cells = [row["class"] for row in csv.DictReader(io.StringIO(out))]
            assert not any(cell.startswith("=") for cell in cells)  # which a spreadsheet would run
            assert set(map(from_cell, cells)) == set(names)
    assert main(["predict", "one.png", "--model", str(folder)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert "<script>" in line
    # On a terminal no form sends codes.
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    Path("two\x1b[31m.png").write_bytes(Path("one.png").read_bytes())
    assert main(["predict", "two\x1b[31m.png", "--model", str(folder), "--csv"]) == 0
    printed = capsys.readouterr()
    assert printed.out.replace("\n", "").isprintable()
    assert "\x1b[31m" not in printed.err


@POSIX
def test_pipe_in_place_of_a_file_is_no_wait(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", network())
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    refused(folder, "model.onnx' is not a file; copy the bundle again")


def test_list_of_images_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", network())
    (folder / "trained_on.bin").write_bytes(bytes(7))
    sums = json.loads((folder / "model.json").read_text())["sha256"]
    changed(folder, sha256={**sums, "trained_on.bin": sha256_file(folder / "trained_on.bin")})
    with pytest.raises(BundleError, match=r"is no list of hashes \(7 bytes\)"):
        read_trained_on(read_description(folder))


def test_no_network_is_fetched_for_a_name() -> None:
    for name in ("hf-hub:someone/something", "hf_hub:a/b", "local-dir:/tmp", "https://x/y"):
        with pytest.raises(UsageError, match="timm has no such model"):
            Network(name, 2, 96)
