"""The numbers that an ONNX file computes with: its float types, and whether it is quantized already.

Converters and quantizers take float32. So a file of another float type is widened for them, which changes no weight. A float16 file is kept
beside it, as the fp16 variant: narrowing the widened graph again would compute in float16 what such a file may hold in float32 on purpose.
Its outputs, with which all variants are compared, are rounded at each of its operators; how far a variant has to agree with them is
therefore a matter of float16, see edgewise.proof.checks.least_sqnr_db.

A file that is quantized already is measured as a scheme. It is quantized in one of these ways, and its largest weight decides:

QDQ              QuantizeLinear and DequantizeLinear around float operators
QOperator        QLinearConv, QLinearMatMul, QGemm
ConvInteger ...  the ranges of activations are found at run time
MatMulNBits      blocks of few bits beside float activations

Weights that are stored as integers beside float activations, with no QuantizeLinear on the way of the data, are a form of storage: such a
file counts as float, and its weights are widened (see onnx_rewriting).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from edgewise.onnx_reading import find_constants, iterate_graphs, list_nodes, read_attributes

PRODUCTS = ("Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN")
SMALL = ("float16", "bfloat16")
INNER = "/float16"  # ending of the name of a port inside the graph, where the file has float16 and the port has float32
SCHEMES: Mapping[tuple[str, str], str] = {  # (weights, activations), without the sign -> scheme
    ("int8", "int8"): "int8-static",
    ("int8", "dynamic"): "int8-dynamic",
    ("int4", "float32"): "int4-weight",
}
STATIC = ("QLinearConv", "QLinearMatMul", "QGemm")  # x, its scale, its zero point, weights ...
DYNAMIC = ("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM")  # x, weights ...
BLOCKS = "MatMulNBits"
DEFAULT = "int8"  # of a QuantizeLinear without a zero point: uint8


def find_precision(model: Any) -> str | None:
    """float16 or bfloat16, if that is the type of all weights of its products; None for any other file."""
    constants = find_constants(model)
    names = {name for node in list_nodes(model) if node.op_type in PRODUCTS for name in node.input}
    kinds = {_dtype(constants[name].data_type) for name in names & constants.keys()}
    return kinds.pop() if len(kinds) == 1 and kinds <= {*SMALL} else None


def to_float32(model: Any) -> list[str]:
    """Widen all of the graph. Returns a note for each type that was converted."""
    from onnx import TensorProto, numpy_helper

    names = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}
    found: set[str] = set()

    def widen(tensor: Any) -> None:
        if tensor.data_type in names:
            found.add(names[tensor.data_type])
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))

    for graph in iterate_graphs(model.graph):
        graph.ClearField("value_info")
        for tensor in graph.initializer:
            widen(tensor)
        for tensor in (*graph.input, *graph.output):
            if tensor.type.tensor_type.elem_type in names:
                found.add(names[tensor.type.tensor_type.elem_type])
                tensor.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                widen(attribute.t)
                if attribute.name in ("to", "dtype") and attribute.i in names:
                    attribute.i = TensorProto.FLOAT
    return [f"{name} was converted to float32" for name in sorted(found)]


def widen_ports(graph: Any) -> None:
    """Give float16 inputs and outputs of a graph the type float32, with casts behind and before them."""
    from onnx import TensorProto, helper

    ports = {t.name: t for t in (*graph.input, *graph.output) if t.type.tensor_type.elem_type == TensorProto.FLOAT16}
    for inner in iterate_graphs(graph):
        for node in inner.node:
            for values in (node.input, node.output):
                values[:] = [f"{name}{INNER}" if name in ports else name for name in values]
    given = [tensor.name for tensor in graph.input if tensor.name in ports]
    casts = {name: helper.make_node("Cast", [name], [f"{name}{INNER}"], f"{name}/Cast", to=TensorProto.FLOAT16) for name in given}
    made = [name for name in ports if name not in given]
    ends = [helper.make_node("Cast", [f"{name}{INNER}"], [name], f"{name}/Cast", to=TensorProto.FLOAT) for name in made]
    nodes = [*casts.values(), *(type(node).FromString(node.SerializeToString()) for node in graph.node), *ends]
    graph.ClearField("node")
    graph.node.extend(nodes)
    for tensor in ports.values():
        tensor.type.tensor_type.elem_type = TensorProto.FLOAT


def _dtype(code: int) -> str:
    from onnx import helper

    return str(helper.tensor_dtype_to_np_dtype(code).name)


@dataclass(frozen=True)
class Quantized:
    """how: see above. weights, activations: types without their sign; activations may be `dynamic`."""

    how: str
    weights: str
    activations: str

    @property
    def scheme(self) -> str | None:
        """The scheme that the file is measured as; None: there is none like it."""
        return SCHEMES.get((self.weights, self.activations))

    @property
    def described(self) -> str:
        plain = f"{self.weights} already: {self.how}"
        return plain if self.scheme else f"{plain}, {self.weights} weights with {self.activations} activations"


def recognize_quantized(model: Any) -> Quantized | None:
    """How a graph is quantized, by its largest weight; None for a float one."""
    constants, nodes = find_constants(model), list_nodes(model)
    found = [entry for node in nodes if (entry := _recognize_operator(node, constants))] + _recognize_pairs(nodes, constants)
    return max(found, key=lambda entry: entry[0])[1] if found else None


def _recognize_operator(node: Any, constants: Mapping[str, Any]) -> tuple[int, Quantized] | None:
    """Elements of the weights of an operator on integers, and how they are quantized."""
    if node.op_type == BLOCKS:
        sizes = read_attributes(node)
        return sizes["K"] * sizes["N"], Quantized(BLOCKS, f"int{sizes.get('bits', 4)}", "float32")
    if node.op_type in STATIC and node.input[3] in constants:
        activations = read_dtype(constants[node.input[2]]) if node.input[2] in constants else DEFAULT
        return prod(constants[node.input[3]].dims), Quantized("QOperator", read_dtype(constants[node.input[3]]), activations)
    if node.op_type in DYNAMIC and node.input[1] in constants:
        return prod(constants[node.input[1]].dims), Quantized(node.op_type, read_dtype(constants[node.input[1]]), "dynamic")
    return None


def _recognize_pairs(nodes: list[Any], constants: Mapping[str, Any]) -> list[tuple[int, Quantized]]:
    """The same of weights that a DequantizeLinear reads, in a graph where a QuantizeLinear is on the way of the data."""
    quantizers = [node for node in nodes if node.op_type == "QuantizeLinear"]
    active = [node for node in quantizers if node.input[0] not in constants]
    if not active:
        return []
    activations = _result_dtype(active[0], constants)
    # float weights are rounded as the file is loaded
    stored = {node.output[0]: (constants[node.input[0]], _result_dtype(node, constants)) for node in quantizers if node not in active}
    stored |= {name: (tensor, read_dtype(tensor)) for name, tensor in constants.items() if len(tensor.dims) >= 2}
    read = [stored[node.input[0]] for node in nodes if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    found = [(prod(tensor.dims), Quantized("QDQ", dtype, activations)) for tensor, dtype in read]
    return found or [(0, Quantized("QDQ", "float32", activations))]


def _result_dtype(node: Any, constants: Mapping[str, Any]) -> str:
    """What a QuantizeLinear gives, without its sign: the type of its zero point, else the one that it names."""
    from onnx import helper

    if len(node.input) > 2 and node.input[2] in constants:
        return read_dtype(constants[node.input[2]])
    named = read_attributes(node).get("output_dtype")
    return str(helper.tensor_dtype_to_np_dtype(named).name).removeprefix("u") if named else DEFAULT


def read_dtype(tensor: Any) -> str:
    """The type of a tensor, without its sign: zero points make up for it."""
    from onnx import helper

    return str(helper.tensor_dtype_to_np_dtype(tensor.data_type).name).removeprefix("u")
