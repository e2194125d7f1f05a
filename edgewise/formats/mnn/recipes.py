"""The schemes of the MNN format as functions: (file of the float model, target, settings, calibration feeds, nodes to keep float)."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.mnn import converter, float_layers, graph
from edgewise.formats.mnn.float_layers import find_spread
from edgewise.formats.mnn.scales import HIGHEST, LOWEST, Range, Scale, find_ranges, find_scales

Arrays = dict[str, np.ndarray]
Ranges = Mapping[str, tuple[Range, Range]]
# returns the layers that it left float by a rule of its own
Recipe = Callable[[Path, Path, Mapping[str, Any], Sequence[Arrays], Sequence[str]], Sequence[str] | None]

PLUGIN = 256  # MNN's number of an operator type that its converter leaves alone
FLOAT16_MAX = 65504.0
STATIC = ("Convolution", "ConvolutionDepthwise", "MatMul")  # what MNN computes with scales that the file holds


def fp32(parent: Path, target: Path, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: Sequence[str]) -> None:
    shutil.copyfile(parent, target)


def fp16(parent: Path, target: Path, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: Sequence[str]) -> None:
    """Constants in half precision. The converter halves every operator that it knows: those to keep float are plugins while it does.

    It drops the digits that float16 does not have, which makes all weights smaller (ResNet-18: SQNR 45 dB); so they are rounded before.
    """
    hidden = dict.fromkeys([*kept, *_find_constants(parent, kept)], PLUGIN)
    disguised = target.with_name(f"disguised.{target.name}")
    disguised.write_bytes(_round_to_half(graph.read_file(parent), hidden.keys()))
    own = converter.change_types(disguised, hidden)
    converter.requantize(disguised, target, ["--fp16"])
    disguised.unlink()
    converter.change_types(target, own)
    converter.make_repeatable(target)


def _round_to_half(model: graph.Model, left: Collection[str]) -> bytearray:
    """The file with all constants rounded to the values of float16, those of the operators `left` apart."""
    for operator in model.operators:
        values = operator.find_floats() if operator.name not in left else None
        if values is not None:
            values[:] = np.clip(values, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)
    return model.data


def _find_constants(path: Path, names: Sequence[str]) -> Iterator[str]:
    """The names of the constants that some operators read."""
    for one in graph.read_file(path).graphs:
        read = {tensor for operator in one if operator.name in names for tensor in operator.inputs}
        yield from (operator.name for operator in one if operator.number == graph.CONSTANT and read.intersection(operator.outputs))


def packed(parent: Path, target: Path, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: Sequence[str]) -> None:
    """Weights in 8 or 4 bits, which MNN unpacks to floats when it loads a file, unless the engine setting `memory` is low.

    settings: bits; block_size: inputs of a layer that share a scale, None for all of them (MNN has blocks in products and convolutions of
    1x1 only); symmetric; keep_int8: nodes that keep 8 bits.
    """
    layers = []
    for operator in _find_layers(parent, graph.CONVOLUTIONS, kept):
        bits = 8 if operator.name in settings.get("keep_int8", ()) else settings["bits"]
        form = {"bits": bits, "asymmetric": not settings["symmetric"], "blockSize": settings.get("block_size") or -1}
        layers.append({"opName": operator.name, "weight": [{"name": operator.name, **form}]})
    converter.requantize(parent, target, [], layers)


def int8_static(
    parent: Path, target: Path, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: Sequence[str]
) -> Sequence[str]:
    """8-bit convolutions and matrix products with one scale for each tensor, and for each output channel of a weight, which has no zero
    point. Returns the layers that stay float by a rule: see `float_layers`.

    MNN's own tool for this ends with std::length_error on x86; the scales that it would find are handed to the converter instead.
    """
    model = graph.read_file(parent)
    left = set(find_spread(parent.parent, model, calibration)) if settings.get("spread") == "float" else set[str]()
    layers = [one for one in _find_layers(parent, graph.CONVOLUTIONS, kept) if one.kind in STATIC and one.name not in left]
    names = {one.name for one in (*layers, *(one for one in model.operators if one.number in graph.POOLINGS))}
    ranges = find_ranges(parent.parent, settings["calibration"]["method"], calibration, names)
    layers = [one for one in layers if one.name in ranges]  # the others stay float, and the check of the file names them
    _write_static(parent, target, model, layers, ranges)
    while wrong := _find_wrong(target.parent, model, layers, ranges, calibration[0]):
        left |= float_layers.find_layers_near(wrong, model, {one.name for one in layers})
        layers = [one for one in layers if one.name not in left]
        _write_static(parent, target, model, layers, ranges)
    return [one.name for one in model.operators if one.name in left]


def _write_static(parent: Path, target: Path, model: graph.Model, layers: Sequence[graph.Operator], ranges: Ranges) -> None:
    scales = find_scales(model, {one.name: ranges[one.name] for one in layers})
    converter.requantize(parent, target, [], [_describe_static(one, scales) for one in layers])


def _find_wrong(folder: Path, model: graph.Model, layers: Sequence[graph.Operator], ranges: Ranges, feeds: Arrays) -> set[str]:
    """The poolings that the file in `folder` computes wrongly."""
    risky = float_layers.find_risky_poolings(model, ranges, {one.name for one in layers})
    return risky & float_layers.find_rounded_poolings(folder, feeds) if risky else risky


def _describe_static(operator: graph.Operator, scales: Mapping[str, Scale]) -> dict[str, Any]:
    rows = abs(operator.float_values()).max(axis=1)
    steps = np.where(rows > 0, rows, HIGHEST) / HIGHEST  # 1 where all weights are 0
    weight = {"name": operator.name, "bits": 8, "scales": steps.tolist(), "clampMin": -HIGHEST, "clampMax": HIGHEST}
    sides = {"input": operator.inputs[0], "output": operator.outputs[0]}
    return {"opName": operator.name, "weight": [weight], **{side: [_describe_tensor(name, scales[name])] for side, name in sides.items()}}


def _describe_tensor(name: str, scale: Scale) -> dict[str, Any]:
    return {"name": name, "bits": 8, "scales": [scale.step], "zeroPoint": scale.zero, "clampMin": LOWEST, "clampMax": HIGHEST}


def _find_layers(parent: Path, numbers: Mapping[int, str], kept: Sequence[str]) -> list[graph.Operator]:
    operators = graph.read_file(parent).operators
    return [one for one in operators if one.number in numbers and one.weight is not None and one.name not in kept]


RECIPES: dict[str, Recipe] = {
    "fp32": fp32,
    "fp16": fp16,
    "int8-weight": packed,
    "int8-static": int8_static,
    "int8-mixed": int8_static,  # with the layers in float that the search found
    "int8-qat": int8_static,  # of a model fine-tuned for it
    "int4-weight": packed,
}
