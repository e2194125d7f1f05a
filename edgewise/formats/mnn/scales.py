"""The scales of the tensors around 8-bit layers.

A zero point makes the steps of values that are mostly positive half as wide. Only tensors between convolutions and functions of one value
get one: with zero points, MNN 3.6 gives wrong answers where a pooling or a sum stands between two layers (SQNR 5 dB instead of 44).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edgewise.formats.common.plateaus import LEVELS, Function, find_ends, half_step, hard_swish, sigmoid, silu
from edgewise.formats.mnn.graph import UNARY, Model, Operator
from edgewise.formats.mnn.value_ranges import Range

LOWEST, HIGHEST = -128, 127
FUNCTIONS: Mapping[int, Function] = {29: sigmoid, 30: np.tanh, 31: hard_swish, 34: silu}  # by MNN's numbers (UnaryOpOperation)
CONVOLUTION, DEPTHWISE = 12, 13
FREE = (CONVOLUTION, DEPTHWISE, UNARY)  # operators whose tensors may have zero points


class Scale(NamedTuple):
    """A value is (integer - zero) * step."""

    step: float
    zero: int


def find_scales(model: Model, ranges: Mapping[str, tuple[Range, Range]]) -> dict[str, Scale]:
    """Of the inputs and outputs of the operators of `ranges`, by name of the tensor."""
    reached = {
        tensor: reach
        for operator in model.operators
        if operator.name in ranges
        for tensor, reach in zip((operator.inputs[0], operator.outputs[0]), ranges[operator.name], strict=True)
    }
    readers, writers = _find_users(model)
    return {tensor: _find_scale(reach, readers.get(tensor, []), writers.get(tensor, [])) for tensor, reach in reached.items()}


def _find_users(model: Model) -> tuple[dict[str, list[Operator]], dict[str, list[Operator]]]:
    """The operators that read a tensor, and that write it."""
    readers: dict[str, list[Operator]] = {}
    writers: dict[str, list[Operator]] = {}
    for operator in model.operators:
        for users, tensors in ((readers, operator.inputs), (writers, operator.outputs)):
            for tensor in tensors:
                users.setdefault(tensor, []).append(operator)
    return readers, writers


def _find_scale(reach: Range, readers: list[Operator], writers: list[Operator]) -> Scale:
    low, high = reach
    function = FUNCTIONS.get(readers[0].function or 0) if len(readers) == 1 else None
    if function is not None:
        low, high = find_ends(function, low, high, half_step(function, low, high))
    free = bool(readers) and bool(writers) and all(operator.number in FREE for operator in (*readers, *writers))
    return to_scale(low, high, free)


def to_scale(low: float, high: float, free: bool) -> Scale:
    """For values from low to high, and 0. free: whether 0 may be another integer than 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return Scale(1.0, 0)
    if not free:
        return Scale(max(-low, high) / HIGHEST, 0)
    step = (high - low) / LEVELS
    return Scale(step, round(LOWEST - low / step))
