"""The boxes that detectors count their answers from: grids of cells, and the anchors of SSD. Python 3.9, numpy alone.

Anchors are rows of center x, center y, width, height as shares of the input, or the options by which MediaPipe's SsdAnchorsCalculator makes
them, under their published names (mediapipe/calculators/tflite/ssd_anchors_calculator.proto):

    {"strides": [8, 16, 16, 16], "min_scale": 0.1484375, "max_scale": 0.75, "aspect_ratios": [1.0], "fixed_anchor_size": true}
"""

from __future__ import annotations

import math
from typing import Any, List, Mapping, Sequence, Tuple, Union

import numpy as np

OPTIONS = {  # of generated anchors -> default; strides, min_scale and max_scale must be given
    "strides": None,
    "min_scale": None,
    "max_scale": None,
    "aspect_ratios": [1.0],
    "interpolated_scale_aspect_ratio": 1.0,
    "reduce_boxes_in_lowest_layer": False,
    "fixed_anchor_size": False,
    "anchor_offset_x": 0.5,
    "anchor_offset_y": 0.5,
}
LOWEST_LAYER = ((1.0, 0.1), (2.0, None), (0.5, None))  # (aspect ratio, scale; None: the layer's) of reduce_boxes_in_lowest_layer


def grid_cells(size: Sequence[int], strides: Sequence[int]) -> Tuple[np.ndarray, np.ndarray]:
    """(x and y of each cell, float64 [k, 2]; its stride in pixels, float64 [k, 1]): strides in order, in each the cells row by row.

    size: height and width of the input.
    """
    cells, widths = [], []
    for stride in strides:
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        widths.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float64), np.concatenate(widths).astype(np.float64)


def make_anchors(given: Union[Mapping[str, Any], Sequence[Sequence[float]]], size: Sequence[int]) -> np.ndarray:
    """Anchors as shares of the input, float64 [k, 4], from rows or from options. ValueError for what is neither. size: height and width."""
    if isinstance(given, Mapping):
        return _generate({**OPTIONS, **_checked(given)}, size)
    rows = np.asarray(given, np.float64)
    if rows.ndim != 2 or rows.shape[1] != 4 or not len(rows):
        raise ValueError(f"anchors: {list(rows.shape)} is not a list of rows of center x, center y, width, height")
    return rows


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    unknown, missing = set(options) - set(OPTIONS), {"strides", "min_scale", "max_scale"} - set(options)
    if unknown:
        raise ValueError(f"anchors: unknown option {sorted(unknown)[0]!r}; allowed: {', '.join(OPTIONS)}")
    if missing:
        raise ValueError(f"anchors: {', '.join(sorted(missing))} must be given")
    if not _all_positive(options["strides"], int):
        raise ValueError(f"strides {options['strides']!r} must be a list of integers from 1, such as [8, 16, 16, 16]")
    if not _all_positive(options.get("aspect_ratios", [1.0]), (int, float)):
        raise ValueError(f"aspect_ratios {options['aspect_ratios']!r} must be a list of numbers above 0, such as [1.0, 2.0, 0.5]")
    return options


def _all_positive(given: Any, kinds: Any) -> bool:
    numbers = isinstance(given, (list, tuple)) and bool(given)
    return numbers and all(isinstance(one, kinds) and not isinstance(one, bool) and one > 0 for one in given)


def _generate(options: Mapping[str, Any], size: Sequence[int]) -> np.ndarray:
    """Strides that follow each other and are the same share a grid: all their shapes at each of its cells."""
    strides: List[int] = list(options["strides"])
    found, layer = [], 0
    while layer < len(strides):
        end = layer
        shapes: List[Tuple[float, float]] = []
        while end < len(strides) and strides[end] == strides[layer]:
            shapes += _layer_shapes(options, end, len(strides))
            end += 1
        found.append(_at_each_cell(shapes, [math.ceil(side / strides[layer]) for side in size], options))
        layer = end
    return np.concatenate(found)


def _layer_shapes(options: Mapping[str, Any], layer: int, count: int) -> List[Tuple[float, float]]:
    """(aspect ratio, scale) of the anchors of one layer."""
    scale = _scale(options, layer, count)
    if layer == 0 and options["reduce_boxes_in_lowest_layer"]:
        return [(ratio, given if given is not None else scale) for ratio, given in LOWEST_LAYER]
    shapes = [(float(ratio), scale) for ratio in options["aspect_ratios"]]
    between = options["interpolated_scale_aspect_ratio"]
    if between > 0:
        following = 1.0 if layer == count - 1 else _scale(options, layer + 1, count)
        shapes.append((float(between), math.sqrt(scale * following)))
    return shapes


def _scale(options: Mapping[str, Any], layer: int, count: int) -> float:
    low, high = float(options["min_scale"]), float(options["max_scale"])
    return (low + high) / 2 if count == 1 else low + (high - low) * layer / (count - 1)


def _at_each_cell(shapes: Sequence[Tuple[float, float]], grid: Sequence[int], options: Mapping[str, Any]) -> np.ndarray:
    y, x = np.mgrid[: grid[0], : grid[1]]
    places = np.stack([(x + options["anchor_offset_x"]) / grid[1], (y + options["anchor_offset_y"]) / grid[0]], axis=-1).reshape(-1, 1, 2)
    sides = np.array([[scale * math.sqrt(ratio), scale / math.sqrt(ratio)] for ratio, scale in shapes])
    if options["fixed_anchor_size"]:
        sides = np.ones_like(sides)
    return np.concatenate(np.broadcast_arrays(places, sides[None]), axis=-1).reshape(-1, 4)
