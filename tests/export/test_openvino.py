"""OpenVINO's form of a bundle's network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import thawnet
from thawnet.bundle.format import read_description, read_onnx
from thawnet.core.errors import BundleError
from thawnet.export.openvino import to_openvino

openvino = pytest.importorskip("openvino", reason="openvino is not installed")


def test_files_say_what_the_onnx_model_says(bundle: Path, tmp_path: Path) -> None:
    model = thawnet.load(bundle)
    onnx = read_onnx(read_description(bundle))
    xml, weights, off = to_openvino(onnx, model)
    assert off < 1e-3
    (tmp_path / "any.xml").write_bytes(xml)
    (tmp_path / "any.bin").write_bytes(weights)
    core = openvino.Core()
    network = core.compile_model(tmp_path / "any.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    squares = np.random.default_rng(3).integers(0, 256, (7, 40, 40, 3), np.uint8)
    found = network({"images": squares})
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    for name in ("logits", "features"):
        (wanted,) = session.run([name], {"images": squares})
        assert found[name] == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    assert b"/tmp" not in xml


def test_what_openvino_can_not_read_is_a_sentence(bundle: Path) -> None:
    with pytest.raises(BundleError, match="cannot be converted by OpenVINO") as caught:
        to_openvino(b"not a network", thawnet.load(bundle))
    assert "\n" not in str(caught.value)
