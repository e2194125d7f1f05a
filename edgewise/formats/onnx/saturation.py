"""Ranges of values that only an activation reads, cut where the activation has come to an end (see common.plateaus)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgewise.formats.common.plateaus import LEVELS, Function, find_ends, hard_swish, sigmoid


def narrow(model: Any, ranges: Any) -> None:
    """Cut, in place, the ranges of inputs of activations at both ends, as far as the output moves by no more than half of its own step.
    ranges: of `ranges.find_ranges`, with this model."""
    from onnxruntime.quantization.calibrate import TensorData

    for given, made, function in _find_activations(model):
        if given in ranges.data and made in ranges.data:
            (low, high), (least, most) = ([np.asarray(limit).item() for limit in ranges.data[name].range_value] for name in (given, made))
            step = (max(0.0, most) - min(0.0, least)) / LEVELS
            ends = find_ends(function, low, high, step / 2)
            ranges.data[given] = TensorData(lowest=np.array(ends[0], np.float32), highest=np.array(ends[1], np.float32))


def _hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> Function:
    return lambda x: np.clip(alpha * x + beta, 0, 1)


def _make_function(node: Any) -> Function | None:
    """What a node of one input computes; None for other operators."""
    if node.op_type == "HardSigmoid":
        return _hard_sigmoid(**{attribute.name: attribute.f for attribute in node.attribute})
    known: Mapping[str, Function] = {"HardSwish": hard_swish, "Sigmoid": sigmoid, "Tanh": np.tanh}
    return known.get(node.op_type)


def _find_activations(model: Any) -> Iterator[tuple[str, str, Function]]:
    """(input, output, function) of activations whose input nothing else reads: one operator, or one that its input is multiplied by, as in
    SiLU, x * sigmoid(x)."""
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    ends = {tensor.name for tensor in model.graph.output}
    for node in model.graph.node:
        function = _make_function(node)
        if function is None or node.input[0] in ends:
            continue
        others = [reader for reader in readers[node.input[0]] if reader is not node]
        if not others:
            yield node.input[0], node.output[0], function
        elif len(others) == 1 and others[0].op_type == "Mul" and sorted(others[0].input) == sorted((node.input[0], node.output[0])):
            yield node.input[0], others[0].output[0], _times(function)


def _times(function: Function) -> Function:
    return lambda x: x * function(x)
