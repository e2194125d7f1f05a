"""Depthwise convolutions whose input channels differ so much in range that one scale of 8 bits is too coarse for most of them.

ONNX Runtime has no int8 kernel with a scale for each input channel, so these layers stay float with those that feed them (see
common.channel_ranges): YOLOX-Nano's AP of .23 becomes .32.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgewise.formats.common.channel_ranges import BITS, SAMPLES, Extremes, lost_bits, widen
from edgewise.formats.onnx import run
from edgewise.formats.onnx.ranges import Arrays, join_batches

ELEMENTWISE = ("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid")


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
