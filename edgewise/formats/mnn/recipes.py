"""The schemes of the MNN format as functions: (file of the float model, target, settings, calibration feeds, nodes to keep float)."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.mnn import converter, graph
from edgewise.formats.mnn.profile import Interpreted

Arrays = dict[str, np.ndarray]
Recipe = Callable[[Path, Path, Mapping[str, Any], Sequence[Arrays], Sequence[str]], None]

PLUGIN = 256  # MNN's number of an operator type that its converter leaves alone
LARGEST = 127
FLOAT16_MAX = 65504.0
STATIC = ("Convolution", "ConvolutionDepthwise", "MatMul")  # what MNN computes with scales that the file holds
SHARE = 0.9999  # of a sample's values that method `percentile` does not clip
# how the extremes of a tensor are found: of one sample, and from those of all samples
METHODS: dict[str, tuple[Callable[[np.ndarray], float], Callable[[np.ndarray], float]]] = {
    "minmax": (lambda values: float(values.max()), lambda extremes: float(extremes.max())),
    "mean": (lambda values: float(values.max()), lambda extremes: float(extremes.mean())),
    "percentile": (lambda values: float(np.quantile(values, SHARE)), lambda extremes: float(extremes.max())),
}


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


def int8_static(parent: Path, target: Path, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: Sequence[str]) -> None:
    """8-bit convolutions and matrix products with one scale for each tensor, and for each output channel of a weight; all symmetric: with
    zero points, MNN 3.6 gives wrong answers where a pooling or a sum stands between two layers (SQNR 5 dB instead of 44).

    MNN's own tool for this ends with std::length_error on x86; the scales that it would find are handed to the converter instead.
    """
    found = [operator for operator in _find_layers(parent, graph.CONVOLUTIONS, kept) if operator.kind in STATIC]
    ranges = find_ranges(parent, settings["calibration"]["method"], calibration, {operator.name for operator in found})
    converter.requantize(parent, target, [], [_describe_static(operator, *ranges[operator.name]) for operator in found])


def _describe_static(operator: graph.Operator, given: float, result: float) -> dict[str, Any]:
    """given, result: the largest absolute value of the input and of the output."""
    rows = abs(operator.float_values()).max(axis=1)
    weight = {"name": operator.name, "bits": 8, "scales": _scale(rows).tolist(), "clampMin": -LARGEST, "clampMax": LARGEST}
    sides = {
        side: [
            {"name": name, "bits": 8, "scales": [float(_scale(np.float64(extreme)))], "zeroPoint": 0, "clampMin": -128, "clampMax": LARGEST}
        ]
        for side, name, extreme in (("input", operator.inputs[0], given), ("output", operator.outputs[0], result))
    }
    return {"opName": operator.name, "weight": [weight], **sides}


def _scale(extreme: np.ndarray | np.float64) -> Any:
    """Of 8 bits; 1 where all values are 0."""
    return np.where(extreme > 0, extreme, LARGEST) / LARGEST


def find_ranges(parent: Path, method: str, calibration: Sequence[Arrays], names: set[str]) -> dict[str, tuple[float, float]]:
    """The largest absolute values of the input and the output of these operators over all feeds, by name of the operator."""
    of_sample, of_all = METHODS[method]
    model = Interpreted(str(parent.parent), {"threads": 1})
    seen: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}

    def collect(side: int) -> Callable[[list[Any], Any], bool]:
        def see(tensors: list[Any], described: Any) -> bool:
            if described.getName() in seen:
                seen[described.getName()][side].append(of_sample(abs(model.read(tensors[0]))))
            return True

        return see

    for feeds in calibration:
        model.feed(feeds)
        if not model.runs:
            raise ValueError(
                "MNN does not show the values inside an If or a Loop (recurrent layers are loops), which calibration needs: use int8-weight"
            )
        model.run(collect(0), collect(1))
    return {name: (of_all(np.array(given)), of_all(np.array(results))) for name, (given, results) in seen.items()}


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
