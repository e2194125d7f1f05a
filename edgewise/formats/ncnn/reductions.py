"""Reductions over a single axis of an ONNX file, for which pnnx writes a list of no axes, so that ncnn would reduce nothing.

Which axis it is stands in pnnx's own file alone, where layers have other names and the same order.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from edgewise.formats.ncnn.net_files import FIRST_ARRAY, Layer

KIND, ALL, AXES = "Reduction", 1, FIRST_ARRAY - 3
NONE = "0"  # a list without entries
TOLD = re.compile(r"torch\.(?:mean|sum|amax|amin|logsumexp|norm) .* dim=(-?\d+) .*?#\d+=\(([^)]*)\)")  # the first shape is the input's


def restore_axes(layers: Sequence[Layer], described: str) -> list[Layer]:
    """described: the text of net.pnnx.param. Layers stay as they are where it does not tell one axis for each of them."""
    lacking = [layer.name for layer in layers if _lacks_axes(layer)]
    axes = list(_find_axes(described))
    if len(axes) != len(lacking):
        return list(layers)
    known = dict(zip(lacking, axes, strict=True))
    return [replace(layer, params={**layer.params, AXES: f"1,{known[layer.name]}"}) if layer.name in known else layer for layer in layers]


def _lacks_axes(layer: Layer) -> bool:
    return layer.kind == KIND and not layer.integer(ALL) and layer.params.get(AXES) == NONE


def _find_axes(described: str) -> Iterator[int]:
    """The single axes in order, counted from the last one: blobs lack the axis of samples, which is the first."""
    for line in described.splitlines():
        told = TOLD.match(line)
        if told:
            axis, rank = int(told[1]), len(told[2].split(","))
            yield axis if axis < 0 else axis - rank
