"""ONNX files that are quantized already: in which way, and as which scheme they can be measured.

QDQ              QuantizeLinear and DequantizeLinear around float operators
QOperator        QLinearConv, QLinearMatMul, QGemm
ConvInteger ...  the ranges of activations are found at run time
MatMulNBits      blocks of few bits beside float activations

The largest weight decides. Weights that are stored as integers beside float activations, with no QuantizeLinear on the way of the data,
are a form of storage: such a file counts as float, and its weights are widened (see onnx_folding).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from edgewise.sources.onnx_reading import find_constants, list_nodes, read_attributes

SCHEMES: Mapping[tuple[str, str], str] = {  # (weights, activations), without the sign -> scheme
    ("int8", "int8"): "int8-static",
    ("int8", "dynamic"): "int8-dynamic",
    ("int4", "float32"): "int4-weight",
}
STATIC = ("QLinearConv", "QLinearMatMul", "QGemm")  # x, its scale, its zero point, weights ...
DYNAMIC = ("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM")  # x, weights ...
BLOCKS = "MatMulNBits"
DEFAULT = "int8"  # of a QuantizeLinear without a zero point: uint8


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


def recognize(model: Any) -> Quantized | None:
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
