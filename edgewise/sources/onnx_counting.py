"""How many parameters an ONNX graph has, and how many multiply-adds one sample takes; None where that cannot be told from the file.

Multiply-adds are those of convolutions, matrix products and recurrent layers, biases and activations left out, as usual.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

from edgewise.onnx_reading import find_constants, list_nodes, read_attributes, read_shapes
from edgewise.sources.inspection import product, total

Shapes = Mapping[str, Sequence[int | None]]
UNKNOWN: Sequence[int | None] = (None,)
# places of scales and zero points among the inputs of operators on integers; whatever else they read is weights or data
SCALES: Mapping[str, Sequence[int]] = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), (1, 2)),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), (1, 2, 4, 5, 6, 7)),
    "QGemm": (1, 2, 4, 5, 7, 8),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul"), (2, 3)),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "MatMulNBits": (1, 2, 3, 4),  # its packed weights are counted by the attributes K and N
}
FREE = ("BiasGelu", "FastGelu", "Gelu", "QLinear", "QuickGelu", "Simplified", "Skip")  # beginnings of names in com.microsoft
UNCOUNTED = ("Attention", "DFT", "DeformConv", "Einsum", "STFT")
REPEATED = ("Loop", "Scan", "SequenceMap")


def count_parameters(model: Any) -> int:
    """Elements of all weights and biases, whatever type they are stored in, without scales, zero points and lists of sizes."""
    constants, nodes = find_constants(model), list_nodes(model)
    scales = {name for node in nodes for place, name in enumerate(node.input) if place in _scale_places(node)} | _dynamic_scales(nodes)
    integers = {name for node in nodes if node.op_type in SCALES for name in node.input} - scales
    held = (tensor for name, tensor in constants.items() if name not in scales and (_is_float(tensor) or name in integers))
    return sum(int(prod(tensor.dims)) for tensor in held) + sum(_block_weights(node) for node in nodes)


def _scale_places(node: Any) -> Iterable[int]:
    others = range(1, len(node.input)) if node.op_type.startswith("QLinear") else ()
    return SCALES.get(node.op_type, others)


def _dynamic_scales(nodes: Sequence[Any]) -> set[str]:
    """Scales of weights, which are multiplied by the scale that DynamicQuantizeLinear finds."""
    found = {node.output[1] for node in nodes if node.op_type == "DynamicQuantizeLinear"}
    return {name for node in nodes if node.op_type == "Mul" and found & set(node.input) for name in node.input}


def _is_float(tensor: Any) -> bool:
    from onnx import helper

    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return bool(dtype.kind == "f" or dtype.name == "bfloat16")


def _block_weights(node: Any) -> int:
    sizes = read_attributes(node) if node.op_type == "MatMulNBits" else {"K": 0, "N": 0}
    return int(sizes["K"] * sizes["N"])


def count_multiply_adds(model: Any) -> int | None:
    """Multiply-adds of one sample, by inferred shapes; None where a size is open, or an operator is not known here."""
    from onnx import inliner

    model = inliner.inline_local_functions(model)
    batch = _set_batch(model)
    for tensor in model.graph.output:
        tensor.ClearField("type")  # it may have another batch size
    shapes = read_shapes(model)
    counted = _count_graph(model.graph, shapes)
    first = shapes.get(model.graph.output[0].name, UNKNOWN) if model.graph.output else UNKNOWN
    if counted is None or batch == 1 or not first or first[0] != batch:  # without the batch in the output, a run is one sample
        return counted
    return counted // batch if counted % batch == 0 else None


def _set_batch(model: Any) -> int:
    """Set the batch to 1 in all inputs where it is open: the axis with the name of a batch, else the first, and all axes of the same name.
    Returns the batch size that the file fixes, or 1."""
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [tensor.type.tensor_type.shape.dim for tensor in model.graph.input if tensor.name not in held]
    axes = [next((dim for dim in dims if is_batch(dim.dim_param)), dims[0]) for dims in inputs if len(dims)]
    names = {axis.dim_param for axis in axes} - {""}
    opened = [axis for axis in axes if axis.dim_value <= 0]
    for dim in (*opened, *(dim for dims in inputs for dim in dims if dim.dim_param in names)):
        dim.dim_value = 1
    return 1 if opened else next((dims[0].dim_value for dims in inputs if len(dims) > 1), 1)


def is_batch(name: str) -> bool:
    return name.casefold() in ("b", "bs", "n") or "batch" in name.casefold()


def _count_graph(graph: Any, shapes: Shapes) -> int | None:
    return total([_count_node(node, shapes) for node in graph.node])


def _count_node(node: Any, shapes: Shapes) -> int | None:
    bodies = [_count_graph(body, shapes) for a in node.attribute for body in (*a.graphs, *([a.g] if a.HasField("g") else []))]
    if bodies:
        same = len(set(bodies)) == 1 and (node.op_type not in REPEATED or bodies[0] == 0)
        return bodies[0] if same else None
    if node.op_type in COUNTERS:
        return COUNTERS[node.op_type](node, [shapes.get(name, UNKNOWN) for name in (*node.input, node.output[0])])
    foreign = node.domain not in ("", "ai.onnx") and not node.op_type.startswith(FREE)
    return None if foreign or node.op_type in UNCOUNTED else 0


Given = Sequence[Sequence[int | None]]  # shapes of the inputs, then of the output


def _convolution(weights: int) -> Callable[[Any, Given], int | None]:
    return lambda node, given: product(given[-1], given[weights][1:])


def _transposed_convolution(node: Any, given: Given) -> int | None:
    return product(given[0], given[1][1:])


def _matrix_product(node: Any, given: Given) -> int | None:
    return product(given[-1], given[0][-2:-1] if read_attributes(node).get("transA") else given[0][-1:])


def _single_matrix(node: Any, given: Given) -> int | None:
    """Products with one matrix, of operators whose results onnx cannot infer."""
    return product(given[0], given[1][-1:]) if len(given[1]) == 2 else None


def _blocks(node: Any, given: Given) -> int | None:
    return product(given[0], [read_attributes(node)["N"]])


def _recurrent(node: Any, given: Given) -> int | None:
    """Each step multiplies the weights [directions, gates * hidden, input] and [directions, gates * hidden, hidden]."""
    return total([product(given[0][:2], given[1]), product(given[0][:2], given[2])])


COUNTERS: Mapping[str, Callable[[Any, Given], int | None]] = {
    **dict.fromkeys(("Conv", "ConvInteger"), _convolution(1)),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "QGemm"), _matrix_product),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), _single_matrix),
    "MatMulNBits": _blocks,
    **dict.fromkeys(("GRU", "LSTM", "RNN", "DynamicQuantizeLSTM"), _recurrent),
}
