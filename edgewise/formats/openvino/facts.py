"""What a model.xml really holds, read from its graph and from the bodies of its If, Loop and TensorIterator operators, and its tail as
edgewise.formats.common.tails finds it.

Weights are constants with at least two dimensions above 1 (biases are stored as [1, n, 1, 1]), in products with at least two dimensions
of any size. A node computes in int8 or uint8 if its first input comes from a FakeQuantize of at most 256 levels, else in its float type.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from edgewise.formats.common import tails
from edgewise.formats.common.weighted_nodes import collect_facts

MODEL = "model.xml"
PRODUCTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
# operators that commute with quantization: the FakeQuantize may precede them
MOVING = (
    *("Concat", "Gather", "MaxPool", "Pad", "Reshape", "Slice", "Split", "Squeeze", "StridedSlice", "Transpose", "Unsqueeze"),
    "VariadicSplit",
)
CONVERSIONS = ("FakeQuantize",)
REPEATED = ("Loop", "TensorIterator")
UNPACKING = (
    "Convert",
    "FakeQuantize",
    "Multiply",
    "Reshape",
    "Subtract",
    "Transpose",
)  # operators between stored weights and the node that uses them
DTYPES = {  # OpenVINO's name -> numpy's, bits
    "f64": ("float64", 64),
    "f32": ("float32", 32),
    "f16": ("float16", 16),
    "bf16": ("bfloat16", 16),
    "i8": ("int8", 8),
    "u8": ("uint8", 8),
    "i4": ("int4", 4),
    "u4": ("uint4", 4),
}
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


class Weight(NamedTuple):
    name: str
    stored: str  # OpenVINO's name of the type
    elements: int


def facts(folder: Path) -> dict[str, Any]:
    """plugins.Facts of model.xml."""
    import openvino

    model = openvino.Core().read_model(Path(folder) / MODEL)
    nodes = [(node, found) for node in list_operators(model) if (found := weights(node))]
    converting = (kind for node in list_operators(model) if (kind := node.get_type_name()) in CONVERSIONS and not constant(node))
    return collect_facts(nodes, _describe, lambda weight: DTYPES[weight.stored], converting)


def iterate_bodies(model: Any) -> Iterator[Any]:
    """A model and the bodies inside it, each of which has operators and constants of its own."""
    yield model
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        bodies = (node.get_then_body(), node.get_else_body()) if kind == "If" else (node.get_function(),) if kind in REPEATED else ()
        for body in bodies:
            yield from iterate_bodies(body)


def list_operators(model: Any) -> list[Any]:
    """The operators of a model and of the bodies inside it, in the order of execution."""
    return [node for body in iterate_bodies(model) for node in body.get_ordered_ops()]


def _describe(node: Any, found: list[Weight], elements: int) -> dict[str, Any]:
    main = max(found, key=lambda weight: weight.elements)
    first = next((value.get_node() for value in node.input_values() if constant(value.get_node()) is None), None)
    return {
        "name": node.get_friendly_name(),
        "operator": node.get_type_name(),
        "weights_dtype": DTYPES[main.stored][0],
        "activations_dtype": (quantized_dtype(first) if first else None) or DTYPES[node.get_output_element_type(0).get_type_name()][0],
        "elements": elements,
    }


def constant(node: Any) -> Any | None:
    """The Constant that a node unpacks, through conversion, zero point, scale and shape; None if it does not."""
    if node.get_type_name() == "Constant":
        return node
    if node.get_type_name() not in UNPACKING:
        return None
    origin = constant(node.input_value(0).get_node())
    rest = (constant(value.get_node()) for value in node.input_values()[1:])
    return origin if origin is not None and all(other is not None for other in rest) else None


def weights(node: Any) -> list[Weight]:
    """The weights that a node reads; none if the node itself only unpacks them."""
    kind = node.get_type_name()
    origins = [constant(value.get_node()) for value in node.input_values()]
    if kind == "FakeQuantize" or all(origin is not None for origin in origins):
        return []
    return [_weight(origin) for origin in origins if origin is not None and _is_weight(origin, kind in PRODUCTS)]


def _is_weight(origin: Any, in_product: bool) -> bool:
    shape = list(origin.get_output_shape(0))
    dimensions = len(shape) if in_product else sum(size > 1 for size in shape)
    return dimensions >= 2 and origin.get_element_type().get_type_name() in DTYPES


def _weight(origin: Any) -> Weight:
    return Weight(origin.get_friendly_name(), origin.get_element_type().get_type_name(), prod(origin.get_output_shape(0)))


def quantized_dtype(node: Any) -> str | None:
    """int8 or uint8 if the output of `node` comes from a FakeQuantize; None if it is float."""
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        lowest = constant(node.input_value(1).get_node())
        signed = lowest is None or lowest.get_data().min() < 0
        return None if node.get_attributes()["levels"] > 256 else "int8" if signed else "uint8"
    if kind not in MOVING:
        return None
    inputs = node.input_values() if kind == "Concat" else node.input_values()[:1]
    types = {quantized_dtype(value.get_node()) for value in inputs}
    return types.pop() if len(types) == 1 else None


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
    return tails.Graph(given, tuple(_read_operator(node) for node in nodes if constant(node) is None))


def _read_operator(node: Any) -> tails.Operator:
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
