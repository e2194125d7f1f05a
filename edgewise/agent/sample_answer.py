"""The answer to one sample as a bundle gives it: one of agent.answers, boxes, or the share of each class in a picture. Python 3.9.

spec = {"answer": "boxes", "threshold": number, "decoding": see agent.decoding} | {"answer": "map", ...: see agent.class_maps}
       | see agent.answers
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

from edgewise.agent.answers import make_answers
from edgewise.agent.class_maps import make_class_map
from edgewise.agent.decoding import decode


def answer_sample(
    outputs: Mapping[str, np.ndarray], spec: Mapping[str, Any], labels: Sequence[str], geometry: Any = None
) -> dict[str, Any]:
    """The answer to one sample from all outputs of the model, [1, ...] each: of the one that spec["output"] names, else of the first; the
    values of all of them where none is scored. geometry: an agent.geometry.Geometry of the picture, for boxes and maps."""
    if spec["answer"] == "boxes":
        return {"objects": list_objects(outputs, spec, labels, geometry)}
    if spec["answer"] == "map":
        return {"pixels_share": count_pixels(map_classes(outputs, spec, geometry), labels)}
    if spec["answer"] == "values" and len(outputs) > 1:
        return {name: array[0].tolist() for name, array in outputs.items()}
    return make_answers(outputs[spec.get("output") or next(iter(outputs))], spec, labels)[0]


def list_objects(outputs: Mapping[str, np.ndarray], spec: Mapping[str, Any], labels: Sequence[str], geometry: Any) -> list[dict[str, Any]]:
    """What scores above the threshold, highest first: label, score, and box as x0, y0, x1, y1 in pixels of the picture."""
    (found,) = decode(outputs, {"size": list(geometry.placement.size), **spec["decoding"]})
    corners = geometry.boxes_to_picture(found.corners)
    return [
        {"label": labels[number], "score": round(float(score), 4), "box": [round(float(side), 2) for side in box]}
        for number, score, box in zip(found.classes, found.scores, corners)
        if score > spec["threshold"]
    ]


def map_classes(outputs: Mapping[str, np.ndarray], spec: Mapping[str, Any], geometry: Any) -> np.ndarray:
    """The class of each pixel of the picture, uint8 [height, width]."""
    return make_class_map(outputs[spec["output"]][0], spec, geometry)


def count_pixels(class_map: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """The share of the pixels that each class has, of the classes that occur."""
    counts = np.bincount(class_map.ravel(), minlength=len(labels))[: len(labels)]
    return {label: round(float(count / class_map.size), 4) for label, count in zip(labels, counts) if count}
