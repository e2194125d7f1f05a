"""What a TFLite file really holds: nodes and their constants, read with the schema that ships with the runtime, and its tail as
edgewise.formats.common.tails finds it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common import tails

FILE = "model.tflite"
WEIGHT_DTYPES = ("float32", "float16", "bfloat16", "int16", "int8", "uint8", "int4", "int2")  # the rest are shapes, indices, masks
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
KINDS = {
    **dict.fromkeys(("BATCH_MATMUL", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"), tails.PRODUCT),
    **dict.fromkeys(("LSTM", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"), tails.PRODUCT),
    **dict.fromkeys(("LOG_SOFTMAX", "SOFTMAX"), tails.SOFTMAX),
    **dict.fromkeys(("CONCATENATION", "PACK"), tails.JOIN),
    **dict.fromkeys(("GATHER", "SLICE", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "UNPACK"), tails.PART),
    **dict.fromkeys(("CAST", "DEQUANTIZE", "EXPAND_DIMS", "QUANTIZE", "RESHAPE", "SQUEEZE", "TRANSPOSE"), tails.LAYOUT),
    **dict.fromkeys(("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"), tails.SELECT),
    **dict.fromkeys(("CUSTOM", "IF", "WHILE"), tails.OPAQUE),  # a custom operator may hold weights
    "SHAPE": tails.SHAPE,
}
AXIS_FIRST = ("SPLIT",)  # of its inputs
SUPPRESSION = b"TFLite_Detection_PostProcess"  # the custom operator that decodes boxes and suppresses them


@dataclass(frozen=True)
class Weight:
    """A constant with two or more dimensions. `direct` is false if a DEQUANTIZE is between it and its node."""

    tensor: int
    buffer: int
    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray
    direct: bool

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape))

    def values(self) -> np.ndarray:
        """The values of a float32 constant."""
        return np.frombuffer(self.data, np.float32).reshape(self.shape)


@dataclass(frozen=True)
class Node:
    """One operator. name, output_dtype: of its first output tensor, by whose name the quantizer selects nodes."""

    name: str
    operator: str
    output: int
    output_dtype: str
    weights: tuple[Weight, ...]


def facts(folder: Path) -> Mapping[str, Any]:
    """plugins.Facts of model.tflite. Operators are named as in the schema; weights that several nodes share count once, at the first.
    A node with integer weights and float output runs in the runtime's hybrid kernels: its activations are "dynamic"."""
    nodes = read_nodes(read(Path(folder) / FILE))
    unique = {weight.buffer: weight for node in reversed(nodes) for weight in node.weights}
    bytes_by_dtype: Counter[str] = Counter()
    for weight in unique.values():
        bytes_by_dtype[weight.dtype] += len(weight.data)
    return {
        "operators": dict(sorted(Counter(f"{node.operator}[{activations(node)}]" for node in nodes).items())),
        "weights_bytes_by_dtype": dict(sorted(bytes_by_dtype.items())),
        "weights_elements": sum(weight.elements for weight in unique.values()),
        "nodes": [_describe(node, unique) for node in nodes if node.weights],
        "conversions": dict(Counter(node.operator for node in nodes if node.operator in CONVERSIONS)),
    }


def activations(node: Node) -> str:
    """The type of a node's activations."""
    integer = any(weight.direct and "int" in weight.dtype for weight in node.weights)
    return "dynamic" if integer and node.output_dtype.startswith("float") else node.output_dtype


def _describe(node: Node, firsts: Mapping[int, Weight]) -> dict[str, Any]:
    return {
        "name": node.name,
        "operator": node.operator,
        "weights_dtype": "+".join(sorted({weight.dtype for weight in node.weights})),
        "activations_dtype": activations(node),
        "elements": sum(weight.elements for weight in node.weights if firsts[weight.buffer] is weight),
    }


def read(path: Path) -> Any:
    """The file as a ModelT. ValueError if it is not a TFLite file."""
    from ai_edge_litert.tools import flatbuffer_utils

    with path.open("rb") as stream:
        mark = stream.read(8)[4:]
    if mark != b"TFL3":
        raise ValueError(f"{path} is not a TFLite file: bytes 4 to 8 are {mark!r}, must be TFL3; give a .tflite file")
    return flatbuffer_utils.read_model(str(path))


def write(model: Any, path: Path) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    flatbuffer_utils.write_model(model, str(path))


def read_nodes(model: Any) -> list[Node]:
    """Every operator of every subgraph, in the order of execution."""
    return [node for graph in model.subgraphs for node in _nodes(model, graph)]


def find_between(model: Any, kept: Sequence[str]) -> list[str]:
    """Nodes without weights whose results only kept nodes use: quantizing them would undo the benefit of the kept layers."""
    found = set(kept)
    for graph in model.subgraphs:
        readers: dict[int, list[str]] = {}
        named = list(zip(graph.operators, _nodes(model, graph), strict=True))
        for operator, node in named:
            for index in operator.inputs:
                readers.setdefault(index, []).append(node.name)
        for operator, node in reversed(named):
            users = [user for index in operator.outputs for user in readers.get(index, ())]
            if not node.weights and users and found.issuperset(users):
                found.add(node.name)
    return sorted(found - set(kept))


def _nodes(model: Any, graph: Any) -> Iterator[Node]:
    operators, dtypes = _read_enumeration("BuiltinOperator"), _read_enumeration("TensorType")
    dequantized = {}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = operators[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if kind == "DEQUANTIZE":
            dequantized[operator.outputs[0]] = operator.inputs[0]
        sources = [(dequantized.get(i, i), i not in dequantized) for i in operator.inputs if i >= 0]
        held = [_weight(model, graph, index, direct, dtypes) for index, direct in sources]
        output = operator.outputs[0]
        tensor = graph.tensors[output]
        weights = () if kind == "DEQUANTIZE" else tuple(w for w in held if w)
        yield Node(tensor.name.decode(), kind, output, dtypes[tensor.type], weights)


def _weight(model: Any, graph: Any, index: int, direct: bool, dtypes: dict[int, str]) -> Weight | None:
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    dtype = dtypes[tensor.type]
    if data is None or len(data) == 0 or len(shape) < 2 or dtype not in WEIGHT_DTYPES:
        return None
    return Weight(index, tensor.buffer, dtype, shape, np.frombuffer(data, np.uint8), direct)


def tensor_dtype(tensor: Any) -> str:
    """The type of a tensor, as numpy names it."""
    return _read_enumeration("TensorType")[tensor.type]


def _read_enumeration(enumeration: str) -> dict[int, str]:
    """Number -> name in the schema; names of tensor types as in numpy."""
    from ai_edge_litert import schema_py_generated

    members = vars(getattr(schema_py_generated, enumeration))
    return {v: k.lower() if enumeration == "TensorType" else k for k, v in members.items() if not k.startswith("_")}


def find_tail(folder: Path) -> tails.Tail:
    """The tail of the model in `folder`, see tails.find_tail."""
    return tails.find_tail(read_graph(read(Path(folder) / FILE)))


def find_layers_behind(folder: Path, output: str, total: int, start: int, stop: int) -> list[str]:
    """The nodes behind indices start to stop of an output's axis of `total` elements, see tails.find_layers_behind."""
    model = read(Path(folder) / FILE)
    value = next(str(entry.tensorIndex) for entry in model.signatureDefs[0].outputs if entry.name.decode() == output)
    return tails.find_layers_behind(read_graph(model), value, tails.Span(total, start, stop))


def read_graph(model: Any) -> tails.Graph:
    """The graph of the main subgraph."""
    graph = model.subgraphs[0]
    nodes = read_nodes(model)[: len(graph.operators)]
    operators = tuple(_read_operator(model, operator, node) for operator, node in zip(graph.operators, nodes, strict=True))
    return tails.Graph(tuple(str(index) for index in graph.inputs), operators)


def _read_operator(model: Any, operator: Any, node: Node) -> tails.Operator:
    tensors, kind = model.subgraphs[0].tensors, KINDS.get(node.operator, tails.OTHER)
    indices = [int(index) for index in operator.inputs]
    if model.operatorCodes[operator.opcodeIndex].customCode == SUPPRESSION:
        kind = tails.SELECT
    if node.operator in AXIS_FIRST:
        indices.reverse()
    held = [tensors[index] for index in indices if index >= 0 and tensor_dtype(tensors[index]).startswith(("float", "bfloat"))]
    names = tuple("" if index < 0 else str(index) for index in indices)
    sizes: tuple[int, ...] = ()
    if node.operator == "CONCATENATION":
        sizes = tuple(int(tensors[index].shape[operator.builtinOptions.axis]) for index in indices)
    elif node.operator == "ADD" and any(_is_bias(model, tensor) for tensor in held):
        kind = tails.BIAS
    size = sum(_count_bytes(model, tensor) for tensor in held)
    return tails.Operator(node.name, kind, names, tuple(str(index) for index in operator.outputs), sizes, size)


def _is_bias(model: Any, tensor: Any) -> bool:
    shape = [] if tensor.shape is None else tensor.shape
    return _count_bytes(model, tensor) > 0 and sum(size > 1 for size in shape) <= 1


def _count_bytes(model: Any, tensor: Any) -> int:
    """Bytes of a constant; 0 for a value that is computed."""
    data = model.buffers[tensor.buffer].data
    return 0 if data is None else len(data)
