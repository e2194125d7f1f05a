"""The graph of a model.tflite as edgewise.formats.common.tails looks at it."""

from pathlib import Path
from typing import Any

from edgewise.formats.common import tails
from edgewise.formats.tflite import facts

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


def find_tail(folder: Path) -> tails.Tail:
    """The tail of the model in `folder`, see tails.find_tail."""
    return tails.find_tail(read_graph(facts.read(Path(folder) / facts.FILE)))


def find_layers_behind(folder: Path, output: str, total: int, start: int, stop: int) -> list[str]:
    """The nodes behind indices start to stop of an output's axis of `total` elements, see tails.find_layers_behind."""
    model = facts.read(Path(folder) / facts.FILE)
    value = next(str(entry.tensorIndex) for entry in model.signatureDefs[0].outputs if entry.name.decode() == output)
    return tails.find_layers_behind(read_graph(model), value, tails.Span(total, start, stop))


def read_graph(model: Any) -> tails.Graph:
    """The graph of the main subgraph."""
    graph = model.subgraphs[0]
    nodes = facts.read_nodes(model)[: len(graph.operators)]
    operators = tuple(_read(model, operator, node) for operator, node in zip(graph.operators, nodes, strict=True))
    return tails.Graph(tuple(str(index) for index in graph.inputs), operators)


def _read(model: Any, operator: Any, node: facts.Node) -> tails.Operator:
    tensors, kind = model.subgraphs[0].tensors, KINDS.get(node.operator, tails.OTHER)
    indices = [int(index) for index in operator.inputs]
    if model.operatorCodes[operator.opcodeIndex].customCode == SUPPRESSION:
        kind = tails.SELECT
    if node.operator in AXIS_FIRST:
        indices.reverse()
    held = [tensors[index] for index in indices if index >= 0 and facts.tensor_dtype(tensors[index]).startswith(("float", "bfloat"))]
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
