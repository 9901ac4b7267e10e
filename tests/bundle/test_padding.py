"""Padding made constant: the same numbers, and nothing is left to work out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import thawnet
from support.bundles import write_random_bundle
from support.runs import TINY
from thawnet.bundle.format import read_description, read_onnx
from thawnet.bundle.model import Model
from thawnet.bundle.onnx import IMAGES, probe_squares, to_onnx
from thawnet.bundle.padding import fix_padding
from thawnet.export.pt2 import rebuild
from thawnet.training.gate import outputs


@pytest.fixture(scope="module")
def padded_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle of a network that pads as TensorFlow does."""
    return write_random_bundle(tmp_path_factory.mktemp("bundles") / "bundle", TINY, "same")


@pytest.fixture
def worked_out(padded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """Return the model of the bundle as PyTorch writes it."""
    description = read_description(padded_bundle)
    monkeypatch.setattr("thawnet.bundle.onnx.fix_padding", lambda model, feeds: None)
    return onnx.load_model_from_string(to_onnx(outputs(rebuild(description)), description.meaning))


def test_padding_becomes_constant_and_logits_stay(
    padded_bundle: Path, worked_out: onnx.ModelProto
) -> None:
    description = read_description(padded_bundle)
    before = worked_out.SerializeToString()
    fix_padding(worked_out, {IMAGES: probe_squares(description.meaning.preprocess)[:1]})
    graph = worked_out.graph
    stored = {one.name: onnx.numpy_helper.to_array(one).tolist() for one in graph.initializer}
    pads = [node for node in graph.node if node.op_type == "Pad"]
    # TensorFlow pads 48, 24, 12 and 6 at the end alone, and 3 on both sides.
    ends, sides = [0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0, 1, 1]
    assert [stored[node.input[1]] for node in pads] == [*[ends] * 4, sides]
    # Nothing is left that worked them out.
    assert "Shape" not in [node.op_type for node in graph.node]
    squares = np.random.default_rng(1).integers(0, 256, (7, 40, 40, 3), np.uint8)
    logits, reference = (
        Model(description, content).outputs(squares).logits
        for content in (worked_out.SerializeToString(), before)
    )
    assert logits == pytest.approx(reference, rel=1e-3, abs=1e-3)
    assert (logits == thawnet.load(padded_bundle).outputs(squares).logits).all()


def test_onnx_runtime_merges_the_padding_of_a_bundle(padded_bundle: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "merged.onnx")
    content = read_onnx(read_description(padded_bundle))
    onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load_model(tmp_path / "merged.onnx").graph.node]
    assert "Pad" not in kinds
    assert kinds.count("Conv") == 17


def test_model_whose_padding_is_known_is_left_alone(padded_bundle: Path) -> None:
    content = read_onnx(read_description(padded_bundle))
    model = onnx.load_model_from_string(content)
    fix_padding(model, {})
    assert model.SerializeToString(deterministic=True) == content
