"""A bundle's network in OpenVINO's format: NAME.xml and NAME.bin."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from ..bundle.model import Model
from ..bundle.onnx import IMAGES, LOGITS, PROBES, probe_squares, require_same
from ..core.errors import BundleError, first_line


def to_openvino(onnx: bytes, model: Model) -> tuple[bytes, bytes, float]:
    """Return a bundle's ONNX model as OpenVINO's .xml and .bin, and its logits' largest error.

    Inputs and outputs keep their names; weights stay float32. Both files are read again here, run
    by OpenVINO on the CPU, and compared with `model`, which ONNX Runtime runs.
    Raises BundleError when OpenVINO cannot convert the network or its logits differ.
    """
    # Importing OpenVINO and calling openvino.convert_model are reported to Google Analytics if the
    # package openvino-telemetry, which comes with it, can be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    squares = probe_squares(model.preprocess)
    with tempfile.TemporaryDirectory(prefix="thawnet-") as scratch:
        file = Path(scratch) / "model.xml"
        try:
            core = openvino.Core()
            openvino.save_model(core.read_model(onnx), file, compress_to_fp16=False)
            # By default a processor with bfloat16 computes in bfloat16.
            exact = {"INFERENCE_PRECISION_HINT": "f32"}
            compiled = core.compile_model(core.read_model(file), "CPU", exact)
            logits = [np.array(compiled({IMAGES: squares[:n]})[LOGITS]) for n in (1, PROBES)]
        except Exception as error:  # OpenVINO raises RuntimeError and its own kinds
            raise BundleError(
                f"the network cannot be converted by OpenVINO ({first_line(error)})"
            ) from error
        reference = model.outputs(squares).logits
        off = max(require_same(each, reference[: len(each)], "OpenVINO") for each in logits)
        del compiled, core  # they hold the files open, and Windows cannot delete open files
        return file.read_bytes(), file.with_suffix(".bin").read_bytes(), off
