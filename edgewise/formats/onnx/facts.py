"""What a model.onnx really holds, read from its graph, and its tail as edgewise.formats.common.tails finds it.

Operators are named as in the float model: MatMulInteger, QLinearMatMul and MatMulNBits count as MatMul. The type of a node's activations
is "dynamic" if their range is found at run time, the integer type if they come from a QuantizeLinear, else the float type. Weights are
constants with at least two dimensions above 1 (a bias may be stored as [n, 1, 1]), in products with at least two dimensions of any size;
index tables (int64, bool) are not weights.
"""

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from edgewise.formats.common import tails
from edgewise.formats.common.weighted_nodes import collect_facts
from edgewise.onnx_reading import iterate_graphs

MODEL = "model.onnx"
PASS_THROUGH = ("Cast", "DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
FLOAT_NAMES = {
    **{"ConvInteger": "Conv", "MatMulInteger": "MatMul", "DynamicQuantizeLSTM": "LSTM"},
    **{"DynamicQuantizeMatMul": "MatMul", "MatMulIntegerToFloat": "MatMul", "QGemm": "Gemm"},
    **{"MatMulNBits": "MatMul", "QLinearConv": "Conv", "QLinearMatMul": "MatMul"},
}
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "LSTM", "MatMul")
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
DYNAMIC = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
STATIC = ("QLinearConv", "QLinearMatMul", "QGemm")  # inputs: x, its scale, its zero point, weights, their scale ...
DEFAULT = "uint8"  # what a QuantizeLinear gives without a zero point
WEIGHT_BITS = {
    **{"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16},
    **{"int16": 16, "uint16": 16, "int8": 8, "uint8": 8, "int4": 4, "uint4": 4},
}
KINDS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"), tails.PRODUCT),
    **dict.fromkeys(("LogSoftmax", "Softmax"), tails.SOFTMAX),
    **dict.fromkeys(("Gather", "Slice", "Split"), tails.PART),
    **dict.fromkeys(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"), tails.LAYOUT),
    **dict.fromkeys(("Shape", "Size"), tails.SHAPE),
    **dict.fromkeys(("If", "Loop", "Scan"), tails.OPAQUE),
    **{"Concat": tails.JOIN, "NonMaxSuppression": tails.SELECT},
}


class Constant(NamedTuple):
    """A constant. stored: its dtype in the file; seen: that which the node reads, after DequantizeLinear or Cast."""

    name: str
    stored: str
    seen: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)

    def is_weight(self, in_product: bool) -> bool:
        dimensions = len(self.shape) if in_product else sum(size > 1 for size in self.shape)
        return dimensions >= 2 and self.stored in WEIGHT_BITS


def facts(folder: Path) -> dict[str, Any]:
    """See plugins.Facts."""
    import onnx

    graph = Graph(onnx.load(Path(folder) / MODEL).graph)
    nodes = [(node, weights) for node in graph.nodes if node.op_type not in PASS_THROUGH and (weights := graph.weights(node))]
    converting = (node.op_type for node in graph.nodes if node.op_type in CONVERSIONS and not graph.constant(node.output[0]))
    return collect_facts(nodes, partial(_describe, graph), lambda weight: (weight.stored, WEIGHT_BITS[weight.stored]), converting)


def _describe(graph: "Graph", node: Any, weights: list[Constant], elements: int) -> dict[str, Any]:
    main = max(weights, key=lambda weight: weight.elements)
    return {
        "name": node.name,
        "operator": _operator(node),
        "weights_dtype": main.stored,
        "activations_dtype": graph.activations(node, main),
        "elements": elements,
    }


class Graph:
    """Constants and nodes of a graph and all its subgraphs."""

    def __init__(self, graph: Any):
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Any] = []
        for inner in iterate_graphs(graph):
            self.nodes.extend(inner.node)
            self.constants.update({tensor.name: _constant(tensor.name, tensor) for tensor in inner.initializer})
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = _constant(node.output[0], node.attribute[0].t)
        self.producers = {name: node for node in self.nodes for name in node.output}

    def constant(self, name: str) -> Constant | None:
        """The constant behind a name, through nodes that only pass it on; None if it is computed from the inputs."""
        if name in self.constants:
            return self.constants[name]
        producer = self.producers.get(name)
        passed = self.constant(producer.input[0]) if producer is not None and producer.op_type in PASS_THROUGH else None
        if passed is None or producer is None:
            return None
        if producer.op_type == "DequantizeLinear":
            return passed._replace(seen=self.constants[producer.input[1]].stored)
        return passed._replace(seen=_dtype(_attribute(producer, "to"))) if producer.op_type == "Cast" else passed

    def weights(self, node: Any) -> list[Constant]:
        """The weights that a node reads."""
        if node.op_type == "MatMulNBits":
            return [self._packed(node)]
        names = [node.input[3]] if node.op_type in STATIC else node.input
        found = [constant for name in names if (constant := self.constant(name))]
        return [constant for constant in found if constant.is_weight(_operator(node) in PRODUCTS)]

    def _packed(self, node: Any) -> Constant:
        """Packed blocks of 4 or 8 bits; unsigned, with a zero point of their own or the middle of the range."""
        stored = f"uint{_attribute(node, 'bits')}"
        return Constant(node.input[1], stored, self.constants[node.input[2]].stored, (_attribute(node, "K"), _attribute(node, "N")))

    def activations(self, node: Any, weight: Constant) -> str:
        """The type of a node's activations, see above."""
        if node.op_type in DYNAMIC:
            return "dynamic"
        if node.op_type in STATIC:
            return self._stored_dtype(node.input[2], None)
        computed = next((self.producers.get(name) for name in node.input if not self.constant(name)), None)
        if computed is not None and computed.op_type == "DequantizeLinear":
            return self._stored_dtype(computed.input[2] if len(computed.input) > 2 else "", self.producers.get(computed.input[0]))
        return weight.seen

    def _stored_dtype(self, zero_point: str, quantize: Any | None) -> str:
        """The type of a zero point; without one that which the QuantizeLinear names, or its default. An empty name leaves a zero point
        out."""
        zero = self.constant(zero_point)
        named = [a.i for a in quantize.attribute if a.name == "output_dtype"] if quantize is not None and zero is None else []
        return zero.stored if zero is not None else _dtype(named[0]) if named and named[0] else DEFAULT


def _operator(node: Any) -> str:
    kind: str = node.op_type
    return FLOAT_NAMES.get(kind, kind)


def _constant(name: str, tensor: Any) -> Constant:
    dtype = _dtype(tensor.data_type)
    return Constant(name, dtype, dtype, tuple(tensor.dims))


def _dtype(code: int) -> str:
    import onnx

    return str(onnx.helper.tensor_dtype_to_np_dtype(code).name)


def _attribute(node: Any, name: str) -> Any:
    import onnx

    return next(onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name)


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
    operators = tuple(_read_operator(node, constants, shapes) for node in model.graph.node)
    return tails.Graph(tuple(value.name for value in model.graph.input if value.name not in constants), operators)


def _read_operator(node: Any, constants: dict[str, Any], shapes: dict[str, list[int]]) -> tails.Operator:
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
