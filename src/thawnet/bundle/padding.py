"""Constants in place of the padding that an ONNX model computes from its input's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx


def fix_padding(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> None:
    """Replace the computed paddings of an ONNX model with their values on `feeds`.

    The size of the input must never change, and in thawnet's exports it does not. PyTorch's
    exporter computes TensorFlow's padding from it, in some 30 operators per layer. ONNX Runtime
    merges a constant padding into the convolution after it. A computed one costs a copy, in a
    layout other than the convolutions', and keeps two of them from passing integers on.
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
    # The operators that computed the paddings would still run.
    nodes = needed_for(graph, {output.name for output in graph.output})
    del graph.node[:]
    graph.node.extend(nodes)


def needed_for(graph: onnx.GraphProto, names: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that the named values of a graph depend on, in the graph's order."""
    values, nodes = set(names), []
    for node in reversed(graph.node):  # each comes after those whose outputs it uses
        if not values.isdisjoint(node.output):
            values.update(node.input)
            nodes.append(node)
    return nodes[::-1]
