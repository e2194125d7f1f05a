"""Scales for each channel: the axes of weights that have them, and inputs of depthwise convolutions, which would need them.

ONNX Runtime's tools choose another axis for some weights, or one that the runtime cannot run. For the input of a depthwise convolution it
has no int8 kernel with a scale for each channel: where channels differ so much in range that one scale of 8 bits is too coarse for most of
them, these layers stay float with those that feed them (see common.rounding): YOLOX-Nano's AP of .23 becomes .32.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.formats.common.rounding import BITS, SAMPLES, Extremes, lost_bits, widen
from edgewise.formats.onnx import run
from edgewise.formats.onnx.ranges import Arrays, join_batches
from edgewise.onnx_reading import iterate_graphs

QUANTIZED, SCALE, ZERO_POINT = "_quantized", "_scale", "_zero_point"  # endings that the dynamic tool gives to the parts of a weight
HALF = 128  # zero point of unsigned weights that are symmetric
ONE_SCALE: list[dict[str, Any]] = [{}]  # for the whole tensor, in the words of ONNX Runtime's TensorQuantOverrides
ELEMENTWISE = ("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid")


def find_axes(model: Any) -> dict[str, list[dict[str, Any]]]:
    """TensorQuantOverrides for scales per channel.

    A matrix on the left of a product has its channels in rows. Stacks of matrices get one scale: DequantizeLinear has scales on one axis,
    and the runtime fuses it to a product that takes them for single matrices only (ONNX Runtime 1.31 refuses to run the file). Grouped
    transposed convolutions get one scale, too, since no axis of [in, out / groups, ...] is that of the bias; but in depthwise ones an
    input channel is an output channel.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, axis in (entry for node in model.graph.node for entry in _find_node_axes(node, shapes)):
        found[name] = ONE_SCALE if axis is None or found.get(name, [{"axis": axis}]) != [{"axis": axis}] else [{"axis": axis}]
    return found


def _find_node_axes(node: Any, shapes: dict[str, list[int]]) -> Iterator[tuple[str, int | None]]:
    """(weight, axis; None: one scale) of a node that needs another axis than the tool's."""
    if node.op_type == "MatMul":
        left, right = (shapes.get(name, []) for name in node.input[:2])
        if len(left) >= 2:
            yield node.input[0], len(left) - 2 if len(left) == 2 else None
        if len(right) > 2:
            yield node.input[1], None
    elif node.op_type == "ConvTranspose" and node.input[1] in shapes:
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        inputs, outputs = shapes[node.input[1]][:2]
        if groups > 1:
            yield node.input[1], 0 if groups == inputs and outputs == 1 else None


def spread_zero_points(model: Any) -> None:
    """Give the stacks of matrices in MatMulInteger zero points of shape [..., 1, columns], as it takes them; the dynamic tool writes
    [columns]."""
    from onnx import numpy_helper

    graphs = [*iterate_graphs(model.graph)]
    tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    products = [node for graph in graphs for node in graph.node if node.op_type == "MatMulInteger" and node.input[1] in tensors]
    for weight, name in {(node.input[1], node.input[3]) for node in products}:
        *stack, _, columns = tensors[weight].dims
        if stack and list(tensors[name].dims) == [columns]:
            wide = np.broadcast_to(numpy_helper.to_array(tensors[name]), (*stack, 1, columns))
            tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(wide), name))


def read_filters(model: Any) -> dict[str, np.ndarray]:
    """Name -> values, of the weights of convolutions."""
    from onnx import numpy_helper

    graphs = [*iterate_graphs(model.graph)]
    names = {node.input[1] for graph in graphs for node in graph.node if node.op_type == "Conv"}
    return {t.name: numpy_helper.to_array(t) for graph in graphs for t in graph.initializer if t.name in names}


def scale_channels(model: Any, floats: Mapping[str, np.ndarray]) -> None:
    """Give the weights of ConvInteger a scale for each output channel. The operator takes one zero point for all of them, so they are
    symmetric about it, and the scales, [channels, 1, ...], multiply its result; the dynamic tool writes one scale.

    floats: see `read_filters`, of the float model.
    """
    from onnx import numpy_helper

    graphs = [*iterate_graphs(model.graph)]
    tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    weights = {node.input[1] for graph in graphs for node in graph.node if node.op_type == "ConvInteger" and node.input[1] in tensors}
    for name in weights:
        weight = floats[name.removesuffix(QUANTIZED)]
        largest = abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
        scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(HALF - 1)
        parts = {
            name: (np.rint(weight / scale) + HALF).astype(np.uint8),
            name.removesuffix(QUANTIZED) + SCALE: scale[:, 0],
            name.removesuffix(QUANTIZED) + ZERO_POINT: np.array(HALF, np.uint8),
        }
        for part, array in parts.items():
            tensors[part].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), part))


def find_spread(model: Any, feeds: Sequence[Arrays]) -> list[str]:
    """The names of these convolutions and of those that feed them. feeds: calibration samples of batch size 1."""
    depthwise = {node.name: node.input[0] for node in model.graph.node if _is_depthwise(node, model)}
    if not depthwise or not feeds:
        return []
    bits = {name: lost_bits(low, high) for name, (low, high) in _find_extremes(model, [*depthwise.values()], feeds).items()}
    found = [name for name, tensor in depthwise.items() if bits[tensor] > BITS]
    producers = {name: node for node in model.graph.node for name in node.output}
    feeding = {feeder for name in found for feeder in _find_feeders(depthwise[name], producers)}
    return [node.name for node in model.graph.node if node.name in {*found, *feeding}]


def _is_depthwise(node: Any, model: Any) -> bool:
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    if node.op_type != "Conv" or groups == 1:
        return False
    weight = next((tensor for tensor in model.graph.initializer if tensor.name == node.input[1]), None)
    return weight is not None and weight.dims[1] == 1


def _find_extremes(model: Any, tensors: Sequence[str], feeds: Sequence[Arrays]) -> Extremes:
    """Smallest and largest value of each channel, axis 1, over the samples."""
    import onnx

    names = list(dict.fromkeys(tensors))
    watched = type(model).FromString(model.SerializeToString())
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(watched, f"{folder}/{run.MODEL}")
        session = run.load(folder, {"threads": 1})
    found: Extremes = {}
    for batch in join_batches(model, feeds[:SAMPLES], 1):
        for name, values in session.run(batch).items():
            widen(found, name, values)
    return found


def _find_feeders(tensor: str, producers: Mapping[str, Any]) -> Iterator[str]:
    """The convolutions that a tensor comes from through activations alone."""
    node = producers.get(tensor)
    if node is None:
        return
    if node.op_type == "Conv":
        yield node.name
    elif node.op_type in ELEMENTWISE:
        for name in node.input:
            yield from _find_feeders(name, producers)
