"""The graph of a model.xml as edgewise.formats.common.tails looks at it."""

from pathlib import Path
from typing import Any

from edgewise.formats.common import tails
from edgewise.formats.openvino.facts import MODEL, PRODUCTS, REPEATED, constant

KINDS = {
    **dict.fromkeys((*PRODUCTS, "Einsum", "GRUSequence", "LSTMSequence", "RNNSequence"), tails.PRODUCT),
    **dict.fromkeys(("LogSoftmax", "SoftMax", "Softmax"), tails.SOFTMAX),
    **dict.fromkeys(("Gather", "Slice", "Split", "StridedSlice", "VariadicSplit"), tails.PART),
    **dict.fromkeys(("Convert", "Reshape", "Squeeze", "Transpose", "Unsqueeze"), tails.LAYOUT),
    **dict.fromkeys(("If", *REPEATED), tails.OPAQUE),
    **dict.fromkeys(("DetectionOutput", "MatrixNms", "MulticlassNms", "NonMaxSuppression"), tails.SELECT),
    **{"Concat": tails.JOIN, "ShapeOf": tails.SHAPE},
}
ENDS = ("Constant", "Parameter", "Result")


def find_tail(folder: Path) -> tails.Tail:
    """The tail of the model in `folder`, see tails.find_tail."""
    return tails.find_tail(read_graph(folder))


def find_layers_behind(folder: Path, output: str, total: int, start: int, stop: int) -> list[str]:
    """The nodes behind indices start to stop of an output's axis of `total` elements, see tails.find_layers_behind."""
    import openvino

    model = openvino.Core().read_model(Path(folder) / MODEL)
    value = _name(model.output(output).get_node().input_value(0))
    return tails.find_layers_behind(_read_model(model), value, tails.Span(total, start, stop))


def read_graph(folder: Path) -> tails.Graph:
    import openvino

    return _read_model(openvino.Core().read_model(Path(folder) / MODEL))


def _read_model(model: Any) -> tails.Graph:
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() not in ENDS]
    given = tuple(_name(node.output(0)) for node in model.get_parameters())
    return tails.Graph(given, tuple(_read(node) for node in nodes if constant(node) is None))


def _read(node: Any) -> tails.Operator:
    kind = KINDS.get(node.get_type_name(), tails.OTHER)
    values = node.input_values()
    held = [origin for value in values if (origin := constant(value.get_node())) is not None]
    if node.get_type_name() == "Add" and any(sum(size > 1 for size in origin.get_output_shape(0)) <= 1 for origin in held):
        kind = tails.BIAS
    names, results = (tuple(_name(value) for value in side) for side in (values, node.outputs()))
    sizes = tuple(_size(value, node.get_axis()) for value in values) if kind == tails.JOIN else ()
    size = sum(origin.get_byte_size() for origin in held if origin.get_element_type().is_real())
    return tails.Operator(node.get_friendly_name(), kind, names, results, sizes, size)


def _size(value: Any, axis: int) -> int:
    """The size of a value along an axis; 0 where it is not known."""
    shape = value.get_partial_shape()
    known = shape.rank.is_static and shape[axis].is_static
    return int(shape[axis].get_length()) if known else 0


def _name(value: Any) -> str:
    return f"{value.get_node().get_friendly_name()}:{value.get_index()}"
