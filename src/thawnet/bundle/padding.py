"""Padding that an ONNX model works out from its input's side, made a constant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx


def fix_padding(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> None:
    """Write the paddings of an ONNX model as the numbers that they come to on `feeds`.

    The side of the input must never change, and does not in what thawnet exports. PyTorch's
    exporter writes down how TensorFlow's padding follows from it, in some 30 operators a layer.
    ONNX Runtime merges a known padding into the convolution behind it; an unknown one is copied, in
    another layout than the convolutions', and keeps two of them from handing integers on.
    """
    import onnx
    import onnxruntime

    graph = model.graph
    pads = [node for node in graph.node if node.op_type == "Pad"]
    names = sorted({node.input[1] for node in pads} - {weight.name for weight in graph.initializer})
    if not names:
        return
    measuring = onnx.ModelProto()
    measuring.CopyFrom(model)
    del measuring.graph.output[:]
    measuring.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in names
    )
    session = onnxruntime.InferenceSession(
        measuring.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    constants = {name: f"{name}_constant" for name in names}
    for name, value in zip(names, session.run(names, feeds), strict=True):
        graph.initializer.append(onnx.numpy_helper.from_array(value, constants[name]))
    for node in pads:
        node.input[1] = constants.get(node.input[1], node.input[1])
    # The operators that worked them out would still be run.
    nodes = needed_for(graph, {output.name for output in graph.output})
    del graph.node[:]
    graph.node.extend(nodes)


def needed_for(graph: onnx.GraphProto, names: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes, in their order, that some of a graph's values depend on."""
    values, nodes = set(names), []
    for node in reversed(graph.node):  # each stands behind those that it takes from
        if not values.isdisjoint(node.output):
            values.update(node.input)
            nodes.append(node)
    return nodes[::-1]
