"""What the outputs of detectors mean: each head reads boxes and scores from the arrays of one sample. Python 3.9, numpy alone.

A head is a function of the arrays by role and the settings; it returns corners in pixels of the input. What is kept of them, and
non-maximum suppression, is the same for all of them: see agent.decoding.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgewise.agent import anchors, answers

Arrays = Mapping[str, np.ndarray]
Spec = Mapping[str, Any]


class Found(NamedTuple):
    """Boxes of one sample. corners: [k, 4] of x0, y0, x1, y1 in pixels of the input. scores: [k] with classes [k], or [k, classes].

    Classes may be floats, as files give them; what is below 0 or NaN is no detection.
    """

    corners: np.ndarray
    scores: np.ndarray
    classes: Optional[np.ndarray] = None


class Misfit(ValueError):
    """Outputs that a head cannot read, and why."""


class Head(NamedTuple):
    """read: what makes boxes of the outputs. roles: what it reads, by the keys of spec["outputs"]; optional: what it can do without.
    settings: its own, with their defaults; nms_threshold: the default, None where the boxes need no suppression."""

    read: Callable[[Arrays, Spec], Found]
    roles: Tuple[str, ...]
    optional: Tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}
    nms_threshold: Optional[float] = None


def rows_of(array: np.ndarray, role: str, channels_first: bool = False, least: int = 1) -> np.ndarray:
    """The array as [boxes, numbers of each], without axes of length one. Misfit if it has another form or fewer than `least` numbers."""
    flat = array if array.dtype == np.float64 else array.astype(np.float32, copy=False)
    while flat.ndim > 2 and 1 in flat.shape:
        flat = flat.squeeze(axis=flat.shape.index(1))
    if flat.ndim == 1 and least == 1:
        flat = flat[:, None]
    rows = flat.T if channels_first else flat
    if rows.ndim != 2 or rows.shape[1] < least:
        wanted = f"[{least} or more numbers, boxes]" if channels_first else f"[boxes, {least} or more numbers]"
        raise Misfit(f"{role} of a sample must be {wanted}, it is {list(array.shape)}")
    return rows


def activate(values: np.ndarray, kind: str) -> np.ndarray:
    """Scores from [k, classes]: sigmoid, softmax over the classes, or as they are (none)."""
    if kind == "softmax":
        return answers.softmax(values)
    if kind == "sigmoid":
        with np.errstate(over="ignore"):  # exp(-x) may be inf, and 1 / inf is 0
            squashed: np.ndarray = 1 / (1 + np.exp(-values))
        return squashed
    return values


def without_background(scores: np.ndarray, background: str) -> np.ndarray:
    """The scores [k, classes] without the column that stands for no object: first, last or none."""
    objects = {"first": scores[:, 1:], "last": scores[:, :-1], "none": scores}[background]
    if not objects.shape[1]:
        raise Misfit(f"scores have {scores.shape[1]} column, the background; none is left for a class")
    return objects


def to_corners(boxes: np.ndarray, spec: Spec) -> np.ndarray:
    """Boxes [k, 4] in any format and unit as x0, y0, x1, y1 in pixels of the input."""
    kind = spec["box_format"]
    ordered = boxes[:, [1, 0, 3, 2]] if kind.endswith("_yx") else boxes
    if kind.startswith("center"):
        half = ordered[:, 2:] / 2
        ordered = np.concatenate([ordered[:, :2] - half, ordered[:, :2] + half], axis=1)
    height, width = spec["size"]
    return ordered * np.array([width, height] * 2, ordered.dtype) if spec["box_unit"] == "share" else ordered


def read_yolo(arrays: Arrays, spec: Spec) -> Found:
    """YOLOv5 to v12 and their like: the box, with objectness or without, and the classes in one row; further numbers (of masks, of
    keypoints) are left out where `classes` says how many there are."""
    first = 5 if spec["objectness"] else 4
    rows = rows_of(arrays["predictions"], "predictions", spec["channels_first"], first + (spec["classes"] or 1))
    scores = activate(rows[:, first : first + spec["classes"] if spec["classes"] else None], spec["activation"])
    if spec["objectness"]:
        scores = scores * activate(rows[:, 4:5], spec["activation"])
    return Found(to_corners(rows[:, :4], spec), scores)


def read_yolox(arrays: Arrays, spec: Spec) -> Found:
    """YOLOX: centers are offsets from the cells of grids, in strides; sizes are logarithms, in strides (Ge et al., arXiv:2107.08430)."""
    rows = rows_of(arrays["predictions"], "predictions", spec["channels_first"], 6)
    scores = activate(rows[:, 5:], spec["activation"]) * activate(rows[:, 4:5], spec["activation"])
    return Found(_on_grids(rows, "predictions", spec), scores)


def read_grid(arrays: Arrays, spec: Spec) -> Found:
    """The boxes of YOLOX and the scores of all classes in two outputs, without objectness."""
    boxes = rows_of(arrays["boxes"], "boxes", spec["channels_first"], 4)
    return Found(_on_grids(boxes, "boxes", spec), _class_scores(arrays["scores"], len(boxes), {**spec, "background": "none"}))


def _on_grids(rows: np.ndarray, role: str, spec: Spec) -> np.ndarray:
    """Corners in pixels of the input from rows that begin with a box of YOLOX."""
    cells, strides = anchors.grid_cells(spec["size"], spec["strides"])
    if len(cells) != len(rows):
        raise Misfit(f"strides {list(spec['strides'])} of an input of {list(spec['size'])} make {len(cells)} boxes, {role} has {len(rows)}")
    cells, strides = cells.astype(rows.dtype), strides.astype(rows.dtype)
    with np.errstate(over="ignore"):  # an infinite box is dropped later
        boxes = np.concatenate([(rows[:, :2] + cells) * strides, np.exp(rows[:, 2:4]) * strides], axis=1)
    return to_corners(boxes, {**spec, "box_format": "center", "box_unit": "pixels"})


def read_end_to_end(arrays: Arrays, spec: Spec) -> Found:
    """What is left after suppression inside of the model: x0, y0, x1, y1, score, class in one row (YOLOv10, YOLO26, exports with NMS)."""
    rows = rows_of(arrays["predictions"], "predictions", spec["channels_first"], 6)
    return Found(to_corners(rows[:, :4], spec), rows[:, 4], rows[:, 5])


def read_postprocessed(arrays: Arrays, spec: Spec) -> Found:
    """The same in outputs of their own, as TFLite_Detection_PostProcess and EfficientNMS write them; count: how many rows are used."""
    boxes = rows_of(arrays["boxes"], "boxes", least=4)
    scores, classes = (rows_of(arrays[role], role).ravel() for role in ("scores", "classes"))
    if not len(boxes) == len(scores) == len(classes):
        raise Misfit(f"boxes, scores and classes have {len(boxes)}, {len(scores)} and {len(classes)} rows")
    used = np.arange(len(boxes)) < np.ravel(arrays["count"])[0] if "count" in arrays else slice(None)
    return Found(to_corners(boxes[used, :4], spec), scores[used], classes[used])


def read_boxes_scores(arrays: Arrays, spec: Spec) -> Found:
    """Boxes and the scores of all classes in two outputs: DETR (softmax, the last class is no object), RT-DETR and RF-DETR (sigmoid), and
    any detector that decodes its boxes itself."""
    boxes = rows_of(arrays["boxes"], "boxes", spec["channels_first"], 4)
    return Found(to_corners(boxes[:, :4], spec), _class_scores(arrays["scores"], len(boxes), spec))


def _class_scores(array: np.ndarray, count: int, spec: Spec) -> np.ndarray:
    rows = rows_of(_unrolled(array, count), "scores", spec["channels_first"])
    if len(rows) != count:
        raise Misfit(f"there are {count} boxes, but scores for {len(rows)}")
    return without_background(activate(rows, spec["activation"]), spec["background"])


def _unrolled(array: np.ndarray, count: int) -> np.ndarray:
    """[boxes, numbers of each] where all stand in one row, as SSD's layers in Caffe leave them; other arrays as they are."""
    return array.reshape(count, -1) if array.ndim == 1 and count and array.size % count == 0 else array


def read_ssd(arrays: Arrays, spec: Spec) -> Found:
    """SSD: boxes are counted from anchors, which are an output of the model or among the settings (Liu et al., arXiv:1512.02325).

    center = anchor's center + offset * variance * anchor's size; size = anchor's size * exp(offset * variance), or without exp. The rows
    may hold further numbers, as MediaPipe's keypoints.
    """
    fixed = rows_of(arrays["anchors"], "anchors", least=4) if "anchors" in arrays else spec["anchors"]
    rows = rows_of(_unrolled(arrays["boxes"], len(fixed)), "boxes", spec["channels_first"], 4)[:, :4]
    if len(rows) != len(fixed):
        raise Misfit(f"there are {len(fixed)} anchors, but boxes for {len(rows)}")
    ordered = rows[:, [1, 0, 3, 2]] if spec["box_format"] == "center_yx" else rows
    return Found(_from_anchors(ordered, fixed.astype(rows.dtype), spec), _class_scores(arrays["scores"], len(rows), spec))


def _from_anchors(offsets: np.ndarray, fixed: np.ndarray, spec: Spec) -> np.ndarray:
    moved = offsets * np.array(spec["variances"], offsets.dtype)
    with np.errstate(over="ignore"):  # an infinite box is dropped later
        sizes = (np.exp(moved[:, 2:]) if spec["exponential"] else moved[:, 2:]) * fixed[:, 2:]
    boxes = np.concatenate([moved[:, :2] * fixed[:, 2:] + fixed[:, :2], sizes], axis=1)
    return to_corners(boxes, {**spec, "box_format": "center", "box_unit": "share"})


def read_centers(arrays: Arrays, spec: Spec) -> Found:
    """CenterNet: the peaks of a map for each class, and at them the size of the box and the offset of its center (Zhou et al.,
    arXiv:1904.07850). A peak is a cell that no neighbour of eight exceeds."""
    maps = {role: _as_maps(array, role, spec["channels_first"]) for role, array in arrays.items()}
    heat = activate(maps["heatmap"], spec["activation"])
    height, width = heat.shape[1:]
    for role in ("sizes", "offsets"):
        if role in maps and maps[role].shape != (2, height, width):
            raise Misfit(f"heatmap is {list(heat.shape)}, so {role} must be {[2, height, width]}, it is {list(maps[role].shape)}")
    classes, y, x = np.nonzero((heat == _highest_around(heat)) & (heat > spec["score_threshold"]))
    centers = np.stack([x, y], axis=1).astype(heat.dtype)
    if "offsets" in maps:
        centers += maps["offsets"][:, y, x].T
    cell = np.array([spec["size"][1] / width, spec["size"][0] / height], heat.dtype)
    sizes = maps["sizes"][:, y, x].T * (cell if spec["box_unit"] == "cells" else 1)
    boxes = np.concatenate([centers * cell, sizes], axis=1)
    return Found(to_corners(boxes, {**spec, "box_format": "center", "box_unit": "pixels"}), heat[classes, y, x], classes)


def _as_maps(array: np.ndarray, role: str, channels_first: bool) -> np.ndarray:
    """[channels, height, width] of floats."""
    maps = array if array.dtype == np.float64 else array.astype(np.float32, copy=False)
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3:
        raise Misfit(
            f"{role} of a sample must be {'[channels, height, width]' if channels_first else '[height, width, channels]'}, "
            f"it is {list(array.shape)}"
        )
    return maps if channels_first else maps.transpose(2, 0, 1)


def _highest_around(heat: np.ndarray) -> np.ndarray:
    """The highest value of each cell and its eight neighbours: max pooling, 3x3."""
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    across = np.maximum(np.maximum(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])
    highest: np.ndarray = np.maximum(np.maximum(across[:, :-2], across[:, 1:-1]), across[:, 2:])
    return highest


def read_by_callable(arrays: Arrays, spec: Spec) -> Found:
    """The user's own function: function(arrays of one sample by role, spec) -> corners [k, 4], scores [k] and classes [k], or scores
    [k, classes] without classes."""
    corners, scores, *classes = (np.asarray(part) for part in load_callable(spec["callable"])(arrays, spec))
    shapes, count = [part.shape for part in (corners, scores, *classes)], corners.shape[:1]
    if shapes not in ([(*count, 4), count, count], [(*count, 4), (*count, *(scores.shape[1:2] or (0,)))]):
        returned = ", ".join(str(list(shape)) for shape in shapes)
        raise Misfit(
            f"it must return corners [k, 4], scores [k] and classes [k], or corners and scores [k, classes]; it returned {returned}"
        )
    return Found(corners, scores, *classes)


def load_callable(path: str) -> Callable[..., Sequence[Any]]:
    """The function that package.module:function names. ValueError if there is none."""
    module, _, name = path.partition(":")
    try:
        found: Callable[..., Sequence[Any]] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"decoding.callable: {path!r}: {error}; write it as package.module:function") from error
    return found


_IN_ONE = {"channels_first": False, "activation": "none"}
_IN_TWO = {"channels_first": False, "activation": "none", "background": "none", "box_format": "center", "box_unit": "pixels"}
HEADS: Mapping[str, Head] = {
    "yolo": Head(
        read_yolo,
        ("predictions",),
        settings={**_IN_ONE, "objectness": False, "classes": None, "box_format": "center", "box_unit": "pixels"},
        nms_threshold=0.65,
    ),
    "yolox": Head(read_yolox, ("predictions",), settings={**_IN_ONE, "strides": [8, 16, 32]}, nms_threshold=0.65),
    "end_to_end": Head(
        read_end_to_end, ("predictions",), settings={"channels_first": False, "box_format": "corners", "box_unit": "pixels"}
    ),
    "postprocessed": Head(
        read_postprocessed, ("boxes", "classes", "scores"), ("count",), {"box_format": "corners_yx", "box_unit": "share"}
    ),
    "boxes_scores": Head(read_boxes_scores, ("boxes", "scores"), settings=_IN_TWO),
    "ssd": Head(
        read_ssd,
        ("boxes", "scores"),
        ("anchors",),
        {
            **{"channels_first": False, "activation": "softmax", "background": "first", "box_format": "center"},
            **{"anchors": None, "variances": [0.1, 0.1, 0.2, 0.2], "exponential": True},
        },
        nms_threshold=0.6,
    ),
    "centers": Head(
        read_centers, ("heatmap", "sizes"), ("offsets",), {"channels_first": True, "activation": "sigmoid", "box_unit": "cells"}
    ),
    "grid": Head(
        read_grid,
        ("boxes", "scores"),
        settings={"channels_first": True, "activation": "sigmoid", "strides": [8, 16, 32]},
        nms_threshold=0.65,
    ),
    "callable": Head(read_by_callable, (), settings={"callable": None}),
}
