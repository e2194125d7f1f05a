"""Layers that int8-static leaves float by a rule.

Depthwise convolutions whose input channels differ so much in range that one scale of 8 bits is too coarse for most of them: MNN has one
scale for the input of a depthwise convolution, so these layers stay float with those that feed them (see common.rounding).

Layers beside poolings that MNN computes in 8 bits, and wrong. MNN hands the scale of a layer's tensor on to the poolings beside it, and no
file can keep it from that. By the maximum, its kernel for x86 takes negative numbers for the largest ones (MNN 3.6): YOLOX, whose pooled
values come from SiLU, has SQNR -1 dB by one such layer. An average of values that no layer made has the scale of its results for them, too,
and larger values are cut. So the layers whose scales reach such a pooling stay float.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.rounding import BITS, SAMPLES, Extremes, lost_bits, widen
from edgewise.formats.mnn.graph import CONVOLUTIONS, POOLINGS, UNARY, Model, Operator
from edgewise.formats.mnn.profile import INTEGER, Interpreted
from edgewise.formats.mnn.scales import DEPTHWISE, GIVEN, POOLING, Arrays, Range, find_name, iterate_values

ELU, RELU, RELU6, SELU = 23, 69, 70, 78
ACTIVATIONS = (ELU, RELU, RELU6, SELU, UNARY)
BINARY = 7
HOLDING = (*CONVOLUTIONS, UNARY, BINARY)  # operators that do not hand scales on
Neighbours = Callable[[Operator], Sequence[Operator]]
Tensors = Callable[[Operator], Sequence[str]]


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


def find_risky_poolings(model: Model, ranges: Mapping[str, tuple[Range, Range]], layers: Collection[str]) -> set[str]:
    """The poolings that go wrong if they are computed in 8 bits. layers: those with scales."""
    found = [one for one in model.operators if one.number in POOLINGS and one.name in ranges]
    makers = _link(list(model.operators), lambda one: one.outputs, lambda one: one.inputs)

    def is_risky(pooling: Operator) -> bool:
        given, made = ranges[pooling.name]
        if pooling.takes_maximum:
            return given.low < 0
        own = any(True for _ in _iterate_reached([pooling], makers, layers))  # the scale of what it averages
        return not own and (given.low < made.low or given.high > made.high)

    return {one.name for one in found if is_risky(one)}


def find_rounded_poolings(folder: Path, feeds: Mapping[str, np.ndarray]) -> set[str]:
    """The poolings that MNN computes in 8 bits."""
    model, found = Interpreted(str(folder), {"threads": 1}), set[str]()

    def see(tensors: list[Any], described: Any) -> bool:
        if described.getType().startswith(POOLING) and INTEGER in described.getType():
            found.add(find_name(described))
        return True

    model.feed(feeds)
    model.run(lambda tensors, described: True, see)
    return found


def find_layers_near(poolings: Collection[str], model: Model, layers: Collection[str]) -> set[str]:
    """Those of the layers whose scales reach these poolings: that read their results, or, if none does, that make what they pool.
    ValueError where there are none."""
    operators = list(model.operators)
    start = [one for one in operators if one.name in poolings]
    after = _link(operators, lambda one: one.inputs, lambda one: one.outputs)
    before = _link(operators, lambda one: one.outputs, lambda one: one.inputs)
    found = {*_iterate_reached(start, after, layers)} or {*_iterate_reached(start, before, layers)}
    if not found:
        raise ValueError(f"MNN computes the pooling {', '.join(sorted(poolings))} in 8 bits, and wrong: keep_float the layers around it")
    return found


def _link(operators: Sequence[Operator], held: Tensors, wanted: Tensors) -> Neighbours:
    """The operators among whose `held` tensors is one of those that an operator's `wanted` names."""
    holders: dict[str, list[Operator]] = {}
    for operator in operators:
        for tensor in held(operator):
            holders.setdefault(tensor, []).append(operator)
    return lambda operator: [holder for tensor in wanted(operator) for holder in holders.get(tensor, [])]


def _iterate_reached(start: Sequence[Operator], neighbours: Neighbours, layers: Collection[str]) -> Iterator[str]:
    waiting, seen = [*start], {operator.name for operator in start}
    while waiting:
        for operator in neighbours(waiting.pop()):
            if operator.name in seen:
                continue
            seen.add(operator.name)
            if operator.name in layers:
                yield operator.name
            elif operator.number not in HOLDING:
                waiting.append(operator)
