"""Depthwise convolutions whose input channels differ so much in range that one scale of 8 bits is too coarse for most of them.

MNN has one scale for the input of a depthwise convolution, so these layers stay float with those that feed them (see
common.channel_ranges).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgewise.formats.common.channel_ranges import BITS, SAMPLES, Extremes, lost_bits, widen
from edgewise.formats.mnn.graph import CONVOLUTIONS, UNARY, Model, Operator
from edgewise.formats.mnn.scales import DEPTHWISE
from edgewise.formats.mnn.value_ranges import GIVEN, Arrays, iterate_values

ELU, RELU, RELU6, SELU = 23, 69, 70, 78
ACTIVATIONS = (ELU, RELU, RELU6, SELU, UNARY)


def find_spread(folder: Path, model: Model, feeds: Sequence[Arrays]) -> list[str]:
    """The names of these convolutions and of those that feed them. folder: of the float model, whose operators these are."""
    layers = {one.name: one for one in model.operators if one.number == DEPTHWISE and one.weight is not None}
    if not layers or not feeds:
        return []
    spread = [layers[name] for name, (low, high) in find_reach(folder, layers, feeds[:SAMPLES]).items() if lost_bits(low, high) > BITS]
    producers = {tensor: operator for operator in model.operators for tensor in operator.outputs}
    feeding = {feeder for one in spread for feeder in iterate_feeders(one.inputs[0], producers)}
    return [one.name for one in model.operators if one.name in {*(layer.name for layer in spread), *feeding}]


def find_reach(folder: Path, names: Mapping[str, Operator], feeds: Sequence[Arrays]) -> Extremes:
    """Smallest and largest value of each channel, axis 1, of what these operators are given."""
    found: Extremes = {}
    for values in iterate_values(folder, feeds, names):
        for name in (name for name, side in values if side == GIVEN):
            widen(found, name, values[name, GIVEN])
    return found


def iterate_feeders(tensor: str, producers: Mapping[str, Operator]) -> Iterator[str]:
    """The convolutions that a tensor comes from through activations alone."""
    operator = producers.get(tensor)
    if operator is not None and operator.number in CONVOLUTIONS:
        yield operator.name
    elif operator is not None and operator.number in ACTIVATIONS:
        yield from iterate_feeders(operator.inputs[0], producers)
