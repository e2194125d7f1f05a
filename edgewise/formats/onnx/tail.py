"""The graph of a model.onnx as edgewise.formats.common.tails looks at it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewise.formats.common import tails
from edgewise.formats.common.onnx_graphs import iterate_graphs
from edgewise.formats.onnx.facts import MODEL

KINDS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"), tails.PRODUCT),
    **dict.fromkeys(("LogSoftmax", "Softmax"), tails.SOFTMAX),
    **dict.fromkeys(("Gather", "Slice", "Split"), tails.PART),
    **dict.fromkeys(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"), tails.LAYOUT),
    **dict.fromkeys(("Shape", "Size"), tails.SHAPE),
    **dict.fromkeys(("If", "Loop", "Scan"), tails.OPAQUE),
    **{"Concat": tails.JOIN, "NonMaxSuppression": tails.SELECT},
}


def find_tail(folder: Path) -> tails.Tail:
    """The tail of the model in `folder`, see tails.find_tail."""
    return tails.find_tail(read_graph(folder))


def find_layers_behind(folder: Path, output: str, total: int, start: int, stop: int) -> list[str]:
    """The nodes behind indices start to stop of an output's axis of `total` elements, see tails.find_layers_behind."""
    return tails.find_layers_behind(read_graph(folder), output, tails.Span(total, start, stop))


def read_graph(folder: Path) -> tails.Graph:
    import onnx

    model = onnx.load(Path(folder) / MODEL)
    with_shapes = onnx.shape_inference.infer_shapes(model).graph
    described = (*with_shapes.value_info, *with_shapes.output, *with_shapes.input)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in described}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes |= {name: list(tensor.dims) for name, tensor in constants.items()}
    operators = tuple(_read(node, constants, shapes) for node in model.graph.node)
    return tails.Graph(tuple(value.name for value in model.graph.input if value.name not in constants), operators)


def _read(node: Any, constants: dict[str, Any], shapes: dict[str, list[int]]) -> tails.Operator:
    held = [constants[name] for name in node.input if name in constants]
    kind = KINDS.get(node.op_type, tails.OTHER)
    if node.op_type == "Add" and any(sum(size > 1 for size in tensor.dims) <= 1 for tensor in held):
        kind = tails.BIAS
    sizes = tuple(_sizes(node, shapes)) if kind == tails.JOIN else ()
    inputs = (*node.input, *_captured(node))
    return tails.Operator(node.name, kind, inputs, tuple(node.output), sizes, sum(_count_bytes(tensor) for tensor in held))


def _sizes(node: Any, shapes: dict[str, list[int]]) -> Iterator[int]:
    """Those of the inputs of a Concat along its axis, 0 where it is not known."""
    axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
    for name in node.input:
        shape = shapes.get(name, [])
        yield shape[axis] if -len(shape) <= axis < len(shape) else 0


def _captured(node: Any) -> list[str]:
    """The values that the bodies of a node read."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [name for graph in graphs for body in iterate_graphs(graph) for inner in body.node for name in inner.input]


def _count_bytes(tensor: Any) -> int:
    """Bytes of the values of a tensor; 0 unless they are floating point."""
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    return int(values.nbytes) if values.dtype.kind == "f" else 0
