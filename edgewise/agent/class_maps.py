"""Maps of classes from the outputs of a segmentation model, at the size of the picture. One implementation, used in evaluation and on the
device; Python 3.9, numpy alone.

    spec = {"output": "logits", "channels": "first" | "last" | "one" | "none", "threshold": 0.0}
    class_map = make_class_map(outputs["logits"][i], spec, Geometry.of(preprocessing, height, width))

channels first is [classes, h, w], last [h, w, classes]: the class with the highest value. one: [h, w], with or without an axis of length
one, is class 1 where it is above the threshold, else 0. none: [h, w] holds the number of the class itself.

Values are resized, bilinear, from the map (which may be smaller than the model's input, in proportion) to the picture before the classes
are compared: the borders are then those of the picture's pixels and not of the map's.
"""

from __future__ import annotations

import math
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgewise.agent.geometry import IGNORE, Geometry

CHANNELS = ("first", "last", "one", "none")
MAX_CELLS = 4_000_000  # values that are held at the picture's size at a time


def make_class_map(output: np.ndarray, spec: Mapping[str, Any], geometry: Geometry) -> np.ndarray:
    """The class of each pixel of one picture, uint8 [height, width]; IGNORE where the model's input does not show it.

    output: of one sample, without the axis of samples. ValueError where it has not the form that spec["channels"] says.
    """
    scores = read_scores(output, spec["channels"])
    if spec["channels"] == "none":
        return geometry.mask_to_picture(np.rint(scores[0]).astype(np.uint8))
    rows, columns = geometry.picture_centers()
    height, width = geometry.placement.size
    step = max(1, MAX_CELLS // (len(scores) * len(columns)))
    across = _neighbours(columns, scores.shape[2], width)
    made = np.empty((len(rows), len(columns)), np.uint8)
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        values = _blend(_blend(scores, _neighbours(rows[block], scores.shape[1], height), 1), across, 2)
        made[block] = values.argmax(axis=0) if len(values) > 1 else values[0] > spec["threshold"]
    made[np.isnan(rows)] = IGNORE
    made[:, np.isnan(columns)] = IGNORE
    return made


def find_reading(settings: Mapping[str, Any], ports: Mapping[str, Mapping[str, Any]], labels: int) -> Dict[str, Any]:
    """Which output is the map, and how it holds the classes: the spec of `make_class_map`. ValueError if that is not clear.

    settings: output, channels (None: found), threshold (a probability), probabilities (None: as the port's meaning says). ports: of each
    output `shape`, samples first, and `meaning`. labels: how many there are.
    """
    given = {key: "nothing" if settings[key] is None else repr(settings[key]) for key in ("output", "channels")}
    found = [
        (name, channels)
        for name, port in ports.items()
        for channels in possible_channels(port["shape"][1:], labels)
        if settings["output"] in (None, name) and settings["channels"] in (None, channels)
    ]
    if len(found) != 1:
        shapes = ", ".join(f"{name} {list(port['shape'][1:])}".replace("None", "any") for name, port in ports.items())
        ways = f"; they can be read as {', '.join(f'{name} with channels {way}' for name, way in found)}" if found else ""
        raise ValueError(
            f"task.output: {given['output']}, task.channels: {given['channels']}; the model returns {shapes} and the data has {labels}"
            f" classes{ways}; name the output that holds the map, and its channels: {', '.join(CHANNELS)}"
        )
    ((name, channels),) = found
    share, told = settings["threshold"], settings["probabilities"]
    logits = not told if told is not None else ports[name].get("meaning") != "probabilities"
    return {"output": name, "channels": channels, "threshold": math.log(share / (1 - share)) if logits else share}


def possible_channels(shape: Sequence[Optional[int]], labels: int) -> Iterator[str]:
    """How an output of this shape, without samples, may hold so many classes."""
    single = "one" if labels == 2 else "none"
    if len(shape) == 2:
        yield single
    if len(shape) == 3:
        yield from (way for way, size in (("first", shape[0]), ("last", shape[2])) if size == labels)
        yield from (single,) if 1 in (shape[0], shape[2]) else ()


def read_scores(output: np.ndarray, channels: str) -> np.ndarray:
    """The values of one sample as float32 [channels, h, w]. ValueError where the output has another form."""
    array = output.astype(np.float32, copy=False)
    if channels in ("one", "none"):
        array = _plane(array)[None]
    elif channels == "last":
        array = np.moveaxis(array, -1, 0)
    if array.ndim != 3 or not array.size:
        raise ValueError(f"a map of {list(output.shape)} cannot be read with channels {channels}; allowed: {', '.join(CHANNELS)}")
    return array


def _plane(array: np.ndarray) -> np.ndarray:
    """The array without a first or last axis of length one."""
    axis = next((axis for axis in (0, 2) if array.ndim == 3 and array.shape[axis] == 1), None)
    return array if axis is None else array.squeeze(axis=axis)


Neighbours = Tuple[np.ndarray, np.ndarray, np.ndarray]


def _neighbours(places: np.ndarray, count: int, extent: int) -> Neighbours:
    """For places in an axis of the input, `extent` pixels long: the two neighbours among the `count` centers of the map, and the share of
    the second. Beyond the outer centers it is the outermost value, as in torch's interpolate without align_corners."""
    scaled = np.clip(np.nan_to_num(places) * (count / extent) - 0.5, 0, count - 1)
    low = np.floor(scaled).astype(np.int64)
    return low, np.minimum(low + 1, count - 1), (scaled - low).astype(np.float32)


def _blend(values: np.ndarray, neighbours: Neighbours, axis: int) -> np.ndarray:
    low, high, share = neighbours
    weight = share[:, None] if axis == 1 else share
    first = values.take(low, axis=axis)
    blended: np.ndarray = first + (values.take(high, axis=axis) - first) * weight
    return blended
