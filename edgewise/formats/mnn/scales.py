"""How far the tensors of a float model reach, seen while calibration samples run through it, and the scales that 8-bit layers get.

A zero point makes the steps of values that are mostly positive half as wide. Only tensors between convolutions and functions of one value
get one: with zero points, MNN 3.6 gives wrong answers where a pooling or a sum stands between two layers (SQNR 5 dB instead of 44).
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgewise.formats.common.rounding import LEVELS, Function, find_ends, half_step, hard_swish, sigmoid, silu
from edgewise.formats.mnn.graph import UNARY, Model, Operator
from edgewise.formats.mnn.profile import Interpreted

Arrays = Mapping[str, np.ndarray]
GIVEN, MADE = 0, 1  # the first input and the first output of an operator
POOLING = "Pooling"
PART = re.compile(r"_raster_\d+$")  # ends the names of what MNN makes of one operator of the file
SHARE = 0.9999  # of a sample's values that method `percentile` does not clip at either end
LOWEST, HIGHEST = -128, 127
FUNCTIONS: Mapping[int, Function] = {29: sigmoid, 30: np.tanh, 31: hard_swish, 34: silu}  # by MNN's numbers (UnaryOpOperation)
CONVOLUTION, DEPTHWISE = 12, 13
FREE = (CONVOLUTION, DEPTHWISE, UNARY)  # operators whose tensors may have zero points


class Range(NamedTuple):
    low: float
    high: float


def _extremes(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (1 - SHARE, SHARE))
    return float(low), float(high)


def _widest(found: np.ndarray) -> tuple[float, float]:
    return float(found[:, 0].min()), float(found[:, 1].max())


def _mean(found: np.ndarray) -> tuple[float, float]:
    low, high = found.mean(axis=0)
    return float(low), float(high)


# how the range of a tensor is found: of one sample, and from those of all samples, [samples, 2]
METHODS: dict[str, tuple[Callable[[np.ndarray], tuple[float, float]], Callable[[np.ndarray], tuple[float, float]]]] = {
    "minmax": (_extremes, _widest),
    "mean": (_extremes, _mean),
    "percentile": (_quantiles, _widest),
}


def find_ranges(folder: Path, method: str, calibration: Sequence[Arrays], names: Collection[str]) -> dict[str, tuple[Range, Range]]:
    """The ranges of the input and the output of these operators over all feeds, by name of the operator; without those that MNN does not
    run under their names. method: one of METHODS."""
    of_sample, of_all = METHODS[method]
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for values in iterate_values(folder, calibration, names):
        for place, array in values.items():
            seen.setdefault(place, []).append(of_sample(array))
    found = {place: Range(*of_all(np.array(ranges))) for place, ranges in seen.items()}
    return {name: (found[name, GIVEN], found[name, MADE]) for name in names if (name, GIVEN) in found and (name, MADE) in found}


def iterate_values(folder: Path, calibration: Sequence[Arrays], names: Collection[str]) -> Iterator[dict[tuple[str, int], np.ndarray]]:
    """What these operators are given and make, sample by sample. ValueError for a model with control flow, of which MNN shows nothing."""
    model = Interpreted(str(folder), {"threads": 1})
    values: dict[tuple[str, int], np.ndarray] = {}

    def see(side: int) -> Callable[[list[Any], Any], bool]:
        def keep(tensors: list[Any], described: Any) -> bool:
            name = find_name(described)
            if name in names:
                values[name, side] = model.read(tensors[0])
            return True

        return keep

    for feeds in calibration:
        model.feed(feeds)
        if not model.runs:
            raise ValueError(
                "MNN does not show the values inside an If or a Loop (recurrent layers are loops), which calibration needs: use int8-weight"
            )
        model.run(see(GIVEN), see(MADE))
        yield dict(values)


def find_name(described: Any) -> str:
    """The name in the file of an operator that runs. Poolings run under names with a number."""
    name = str(described.getName())
    return PART.sub("", name) if described.getType().startswith(POOLING) else name


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
