"""Repairs of the net that pnnx writes, where ncnn would compute something else than the source, or could not run it.

reductions       over a single axis of an ONNX file: pnnx writes a list of no axes, so that ncnn would reduce nothing
strided slices   of rows and columns, which ncnn lacks: a Crop, and a Pooling whose window is a single pixel. Detectors begin with them
                 (YOLOX's focus)
attention masks  constants, which pnnx writes as bytes of true and false and ncnn reads as floats that are added to the scores, beyond their
                 memory: a ViT keeps 46 dB, or the process aborts

Which axis is reduced, and what a slice takes, stands in the text of pnnx's own file alone (net.pnnx.param). There slices have the
same names; reductions have others, and the same order.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgewise.formats.ncnn.net_files import FIRST_ARRAY, Layer

REDUCTION, REDUCES_ALL, REDUCED_AXES = "Reduction", 1, FIRST_ARRAY - 3
NO_AXES = "0"  # a list without entries
REDUCED = re.compile(r"torch\.(?:mean|sum|amax|amin|logsumexp|norm) .* dim=(-?\d+) .*?#\d+=\(([^)]*)\)")  # the first shape is the input's
SLICE = "Tensor.slice"
NUMBERS = re.compile(r"-?\d+")
FIRST_SIDE = 2  # rows of [samples, channels, rows, columns], which are axis 1 of a blob
ATTENTION = ("SDPA", "MultiHeadAttention")
MASKED = 5  # the parameter of these that says whether a mask is among their inputs
SHUT = -1e30  # added to the score of a position that is not seen
STORED_AS, AS_FLOATS = 21, "1"  # the parameter of a constant that says how it is stored
MASK_CHANNELS = 2


def restore_axes(layers: Sequence[Layer], described: str) -> list[Layer]:
    """described: the text of net.pnnx.param. Layers stay as they are where it does not tell one axis for each of them."""
    lacking = [layer.name for layer in layers if _lacks_axes(layer)]
    axes = list(_find_axes(described))
    if len(axes) != len(lacking):
        return list(layers)
    known = dict(zip(lacking, axes, strict=True))
    return [
        replace(layer, params={**layer.params, REDUCED_AXES: f"1,{known[layer.name]}"}) if layer.name in known else layer
        for layer in layers
    ]


def _lacks_axes(layer: Layer) -> bool:
    return layer.kind == REDUCTION and not layer.integer(REDUCES_ALL) and layer.params.get(REDUCED_AXES) == NO_AXES


def _find_axes(described: str) -> Iterator[int]:
    """The single axes in order, counted from the last one: blobs lack the axis of samples, which is the first."""
    for line in described.splitlines():
        told = REDUCED.match(line)
        if told:
            axis, rank = int(told[1]), len(told[2].split(","))
            yield axis if axis < 0 else axis - rank


def replace_slices(layers: Sequence[Layer], described: str) -> list[Layer]:
    """described: the text of net.pnnx.param, in which layers have the same names. Slices of anything but pictures stay as they are."""
    told = {line.split()[1]: line.split() for line in described.splitlines() if line.startswith(SLICE)}
    return [step for layer in layers for step in (_replace_slice(layer, told[layer.name]) if layer.name in told else [layer])]


def _replace_slice(layer: Layer, words: Sequence[str]) -> Iterator[Layer]:
    params = dict(word.split("=", 1) for word in words[6:] if "=" in word)
    shape = _numbers(params.get(f"#{words[4]}", ""))
    axes = [axis % len(shape) for axis in _plural(params, "dim") if shape]
    if len(shape) != FIRST_SIDE + 2 or min(axes, default=0) < FIRST_SIDE:
        yield layer
        return
    steps = dict(zip(axes, _plural(params, "step"), strict=True))
    spans = [range(shape[axis])[slice(*pair)] for axis, *pair in zip(axes, _plural(params, "start"), _plural(params, "end"), strict=True)]
    cropped = f"{layer.outputs[0]}/crop"
    lists = {9: [span.start for span in spans], 10: [span.stop for span in spans], 11: [axis - 1 for axis in axes]}
    yield Layer(
        "Crop", f"{layer.name}/crop", layer.inputs, (cropped,), {FIRST_ARRAY - key: _list(values) for key, values in lists.items()}, {}
    )
    rows, columns = steps.get(FIRST_SIDE, 1), steps.get(FIRST_SIDE + 1, 1)
    window = {0: "0", 1: "1", 11: "1", 2: str(columns), 12: str(rows), 3: "0", 5: "1"}
    yield Layer("Pooling", layer.name, (cropped,), layer.outputs, window, {})


def _plural(params: Mapping[str, str], name: str) -> list[int]:
    """A number, or a list of them under the name in the plural."""
    return _numbers(params.get(f"{name}s", params.get(name, "")))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in NUMBERS.findall(text.partition(")")[0])]


def _list(values: Sequence[int]) -> str:
    return ",".join(map(str, [len(values), *values]))


def widen_masks(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with constants of bytes that attention reads as floats: 0 for true, a large negative number for false."""
    read = set(_trace_masks(layers))
    return [_widen_mask(layer) if layer.kind == "MemoryData" and layer.outputs[0] in read else layer for layer in layers]


def _trace_masks(layers: Sequence[Layer]) -> Iterator[str]:
    """Blobs that attention reads, and those behind them, through Split."""
    origins = {blob: layer.inputs[0] for layer in layers if layer.kind == "Split" for blob in layer.outputs}
    for layer in layers:
        for blob in layer.inputs if layer.kind in ATTENTION and layer.integer(MASKED) else ():
            while blob in origins:
                blob = origins[blob]
            yield blob


def _widen_mask(layer: Layer) -> Layer:
    """A mask of one channel becomes a matrix, which is added for every head."""
    seen = layer.arrays["constant"]
    if seen.dtype != np.int8:
        return layer
    params = {key: value for key, value in layer.params.items() if not (key == MASK_CHANNELS and value == "1")}
    shape = seen.shape[1:] if len(seen.shape) == 3 and len(seen) == 1 else seen.shape
    mask = np.where(seen != 0, np.float32(0), np.float32(SHUT)).reshape(shape)
    return replace(layer, params={**params, STORED_AS: AS_FLOATS}, arrays={"constant": mask})
