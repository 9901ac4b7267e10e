"""The smallest bundle: a network of a few nodes, by hand, and the model.json that describes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from thawnet.bundle.format import VERSION
from thawnet.bundle.meaning import Meaning
from thawnet.image.preprocess import Preprocess

SIDE = 8
MEANING = Meaning(("a", "b"), Preprocess(SIDE, SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), 1.0)

FEATURES = (
    helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
    helper.make_node("ReduceMean", ["pixels"], ["features"], axes=[1, 2], keepdims=0),
)
LOGITS = helper.make_node("MatMul", ["features", "weight"], ["logits"])
CONVOLUTION = (
    helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
    helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
    helper.make_node("Conv", ["planes", "kernel"], ["maps"], strides=[2, 2], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["maps"], ["positive"]),
    helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["features"]),
)


def weight(
    name: str = "weight", value: float = 1.0, shape: tuple[int, ...] = (3, 2)
) -> TensorProto:
    """Return a tensor of one value."""
    return numpy_helper.from_array(np.full(shape, value, np.float32), name)


def network(
    nodes: Sequence[NodeProto] | None = None,
    weights: Sequence[TensorProto] | None = None,
    convolution: bool = False,
) -> bytes:
    """Return a model from images, (n, 8, 8, 3), to logits, (n, 2), with a bundle's metadata."""
    if nodes is None:
        nodes = (*(CONVOLUTION if convolution else FEATURES), LOGITS)
    if weights is None:
        weights = (weight(), weight("kernel", 0.1, (3, 3, 3, 3)))
    graph = helper.make_graph(
        list(nodes),
        "by hand",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3]),
        ],
        list(weights),
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    helper.set_model_props(model, MEANING.marks)
    return bytes(model.SerializeToString())


def write_bundle(folder: Path, content: bytes) -> Path:
    """Write a model and a model.json that fits it, and return the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    description = {
        "format": VERSION,
        "architecture": {
            "backbone": "by_hand",
            "padding": "",
            "epsilon": None,
            "class_weights": None,
        },
        "classes": list(MEANING.classes),
        "preprocess": MEANING.preprocess.as_dict(),
        "temperature": MEANING.temperature,
        "unfamiliar": None,
        "sha256": {"model.onnx": hashlib.sha256(content).hexdigest()},
    }
    (folder / "model.json").write_text(json.dumps(description))
    return folder
