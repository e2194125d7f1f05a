"""Detections from the outputs of a detector. One implementation, used in evaluation and on the device; Python 3.9, numpy alone.

    spec = {"head": "yolo", "outputs": {"predictions": "output0"}, "size": [640, 640], "score_threshold": 0.25}
    decoder = Decoder(spec)
    for found in decoder({"output0": array}):  # arrays [n, ...]; one Detections for each sample
        found.corners, found.scores, found.classes

The spec is plain data. `head` says how the outputs are read: see HEADS of agent.detectors for its roles and its own settings. Of all heads:

    outputs            {role: name of the output}
    size               height and width of the model's input in pixels
    score_threshold    only what scores higher is kept
    nms_threshold      overlap above which the lower of two boxes is dropped; null: no suppression
    class_agnostic     true: boxes of different classes drop each other too
    multi_label        true: a box may be detected as several classes; false: as its best one; by default true where boxes are suppressed
    max_detections     the highest ones of a sample that are kept

Non-maximum suppression follows torchvision's rules: boxes are taken by descending score, ties in their given order. One is dropped if its
overlap (intersection over union) with a kept box of its class is above the threshold. The arithmetic is that of the boxes' own type, as in
torchvision's kernel: boxes without area that lie on each other have an undefined overlap (0 / 0) and both stay. torchvision's batched_nms
moves the classes apart and rounds differently by it; here the classes are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgewise.agent.anchors import make_anchors
from edgewise.agent.detectors import HEADS, Arrays, Found, Misfit, load_callable

COMMON = {"score_threshold": 0.001, "class_agnostic": False, "max_detections": 300}
MOST_CANDIDATES = 30_000  # boxes of a sample, highest first, that suppression looks at, as in Ultralytics
CHOICES: Mapping[str, Tuple[Any, ...]] = {
    "activation": ("none", "sigmoid", "softmax"),
    "background": ("none", "first", "last"),
    "box_format": ("center", "center_yx", "corners", "corners_yx"),
    "box_unit": ("pixels", "share"),
    "channels_first": (False, True),
    "objectness": (False, True),
    "exponential": (False, True),
    "class_agnostic": (False, True),
    "multi_label": (False, True),
}
HEAD_CHOICES: Mapping[Tuple[str, str], Tuple[Any, ...]] = {  # (head, setting) -> allowed values where they differ
    ("centers", "box_unit"): ("cells", "pixels"),
    ("ssd", "box_format"): ("center", "center_yx"),
}
RANGES: Mapping[str, Tuple[float, float]] = {
    "score_threshold": (0, 1),
    "nms_threshold": (0, 1),
    "max_detections": (1, 100_000),
    "classes": (1, 1_000_000),
}
INTEGERS = ("max_detections", "classes")
MAY_BE_NULL = ("nms_threshold", "classes", "anchors")
BLOCK = 128  # boxes that are looked at together; 64 to 256 take the same time


@dataclass(frozen=True)
class Detections:
    """What was found in one sample, by descending score. corners: float32 [k, 4] of x0, y0, x1, y1 in pixels of the model's input; scores:
    float32 [k]; classes: int64 [k]."""

    corners: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def decode(outputs: Arrays, spec: Mapping[str, Any]) -> List[Detections]:
    """The detections of each sample. outputs: arrays [n, ...] by name. ValueError for a spec that is wrong, or does not fit the outputs."""
    return Decoder(spec)(outputs)


class Decoder:
    """A spec that was checked once. ValueError names the key, the bad value and what is allowed."""

    def __init__(self, spec: Mapping[str, Any]):
        self.spec = complete(spec)
        self._head = HEADS[self.spec["head"]]
        if self.spec.get("anchors") is not None:
            try:
                self.spec["anchors"] = make_anchors(self.spec["anchors"], self.spec["size"])
            except (TypeError, ValueError) as error:
                raise ValueError(f"decoding.anchors: {error}") from error

    def __call__(self, outputs: Arrays) -> List[Detections]:
        """The detections of each sample from arrays [n, ...] by name."""
        return [select(found, self.spec) for found in self.read(outputs)]

    def read(self, outputs: Arrays) -> List[Found]:
        """All boxes of each sample as the head reads them, before any is left out."""
        names = self.spec["outputs"] or {name: name for name in outputs}
        try:
            chosen = {role: outputs[name] for role, name in names.items()}
        except KeyError as error:
            raise ValueError(f"decoding.outputs: the model has no output {error}; it has {describe(outputs)}") from None
        if len({len(array) for array in chosen.values()}) > 1:
            raise ValueError(f"decoding.outputs: {', '.join(names.values())} do not have the same number of samples: {describe(outputs)}")
        try:
            count = len(next(iter(chosen.values())))
            return [self._head.read({role: array[i] for role, array in chosen.items()}, self.spec) for i in range(count)]
        except Misfit as error:
            raise ValueError(f"decoding.head: {self.spec['head']} does not fit: {error}; the model has {describe(outputs)}") from error


def select(found: Found, spec: Mapping[str, Any]) -> Detections:
    """What is kept of the boxes of one sample: above the threshold, finite, not suppressed, the highest ones."""
    corners, scores, classes = _candidates(found, spec)
    kept = _highest(scores, MOST_CANDIDATES)
    corners, scores, classes = corners[kept], scores[kept], classes[kept]
    most = spec["max_detections"]
    if spec["nms_threshold"] is not None:
        stay = suppress(corners, scores, None if spec["class_agnostic"] else classes, spec["nms_threshold"], most)
        corners, scores, classes = corners[stay], scores[stay], classes[stay]
    return Detections(
        corners[:most].astype(np.float32, copy=False),
        scores[:most].astype(np.float32, copy=False),
        classes[:most].astype(np.int64, copy=False),
    )


def _highest(scores: np.ndarray, most: int) -> np.ndarray:
    """The positions of the highest scores, by descending score, ties in their given order. A partition comes first: where a broken model
    scores everything high it is faster than to sort all."""
    rows = np.arange(len(scores)) if len(scores) <= most else np.flatnonzero(scores >= np.partition(scores, -most)[-most])
    ordered: np.ndarray = rows[np.argsort(-scores[rows], kind="stable")][:most]
    return ordered


def _candidates(found: Found, spec: Mapping[str, Any]) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(corners, scores, classes) of what scores above the threshold; NaN is above nothing."""
    threshold, finite = spec["score_threshold"], np.isfinite(found.corners).all(axis=1)
    if found.classes is not None:
        rows = np.flatnonzero((found.scores > threshold) & finite & (found.classes >= 0))
        return found.corners[rows], found.scores[rows], np.rint(found.classes[rows]).astype(np.int64)
    if spec["multi_label"]:
        rows, classes = np.nonzero((found.scores > threshold) & finite[:, None])
        return found.corners[rows], found.scores[rows, classes], classes
    highest = found.scores.max(axis=1)
    rows = np.flatnonzero((highest > threshold) & finite)
    return found.corners[rows], highest[rows], found.scores[rows].argmax(axis=1)


def describe(outputs: Arrays) -> str:
    """The outputs in words: name, type and shape of each, with n for the samples."""
    return ", ".join(f"{name} {array.dtype} [n{''.join(f', {side}' for side in array.shape[1:])}]" for name, array in outputs.items())


def complete(spec: Mapping[str, Any]) -> Dict[str, Any]:
    """The spec with all defaults. ValueError for a wrong one."""
    head = spec.get("head")
    if not isinstance(head, str) or head not in HEADS:
        raise ValueError(f"decoding.head: {head!r}; allowed: {', '.join(HEADS)}")
    kind = HEADS[head]
    overlap = spec.get("nms_threshold", kind.nms_threshold)
    defaults = {**COMMON, "nms_threshold": overlap, "multi_label": overlap is not None, "outputs": {}, **kind.settings}
    unknown = sorted(set(spec) - {"head", "size", *defaults})
    if unknown:
        raise ValueError(f"decoding.{unknown[0]}: head {head} has no such setting; allowed: {', '.join(sorted({'size', *defaults}))}")
    made = {**defaults, **spec}
    for key, value in made.items():
        _check_value(head, key, value)
    _check_pixels(made)
    _check_roles(made)
    _check_own(made)
    return made


def _check_value(head: str, key: str, value: Any) -> None:
    choices = HEAD_CHOICES.get((head, key), CHOICES.get(key))
    if choices is not None and not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ValueError(f"decoding.{key}: {value!r}; allowed: {', '.join(str(choice).lower() for choice in choices)}")
    if key in RANGES and not (value is None and key in MAY_BE_NULL):
        low, high = RANGES[key]
        kinds = int if key in INTEGERS else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            number = "an integer" if key in INTEGERS else "a number"
            raise ValueError(f"decoding.{key}: {value!r} must be {number} from {low} to {high}{' or null' if key in MAY_BE_NULL else ''}")


def _check_pixels(spec: Mapping[str, Any]) -> None:
    size: Any = spec.get("size")
    strides: Any = spec.get("strides", [1])
    if not _positive(size) or len(size) != 2:
        raise ValueError(f"decoding.size: {size!r} must be [height, width] of the model's input, in pixels")
    if not _positive(strides):
        raise ValueError(f"decoding.strides: {strides!r} must be a list of pixels, such as [8, 16, 32]")


def _positive(given: Any) -> bool:
    return isinstance(given, (list, tuple)) and bool(given) and all(type(side) is int and side > 0 for side in given)


def _check_roles(spec: Mapping[str, Any]) -> None:
    head, kind = spec["head"], HEADS[spec["head"]]
    given = spec["outputs"]
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given.values()):
        raise ValueError(f"decoding.outputs: {given!r} must be a mapping of roles to names of outputs")
    missing = [role for role in kind.roles if role not in given]
    unknown = sorted(set(given) - {*kind.roles, *kind.optional}) if kind.roles else []
    if missing or unknown:
        allowed = ", ".join([*kind.roles, *(f"{role} (optional)" for role in kind.optional)])
        wrong = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not one of its roles"
        raise ValueError(f"decoding.outputs: {wrong}; head {head} reads {allowed}")


def _check_own(spec: Mapping[str, Any]) -> None:
    """What only one head needs."""
    if "callable" in spec:
        if not isinstance(spec["callable"], str):
            raise ValueError(f"decoding.callable: {spec['callable']!r}; write it as package.module:function")
        load_callable(spec["callable"])
    if "anchors" in spec and spec["anchors"] is None and "anchors" not in spec["outputs"]:
        raise ValueError("decoding.anchors: missing; head ssd needs the anchors, as a list, as options, or as an output of the model")
    if "variances" in spec and not _four_numbers(spec["variances"]):
        raise ValueError(f"decoding.variances: {spec['variances']!r} must be 4 numbers: of x, y, width and height")


def _four_numbers(given: Any) -> bool:
    return isinstance(given, Sequence) and len(given) == 4 and all(isinstance(one, (int, float)) for one in given)


def suppress(
    corners: np.ndarray, scores: np.ndarray, classes: Optional[np.ndarray], threshold: float, most: Optional[int] = None
) -> np.ndarray:
    """The positions of the boxes that stay, by descending score: int64 [kept].

    corners: float [k, 4] of x0, y0, x1, y1; scores: float [k]; classes: int [k], or None if any box may drop any other; most: stop after so
    many. Each block of boxes is held against those that stay so far, then against itself.
    """
    order = np.argsort(-scores, kind="stable")
    sides = np.ascontiguousarray(corners[order].T)
    groups = np.zeros(len(order), np.int64) if classes is None else classes[order]
    limit = _below(threshold, sides.dtype)
    kept = np.zeros(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        if len(kept):
            block = block[~_overlap(sides, groups, block, kept, limit).any(axis=1)]
        kept = np.concatenate([kept, block[_first(_overlap(sides, groups, block, block, limit))]])
        if most is not None and len(kept) >= most:
            kept = kept[:most]
            break
    stays: np.ndarray = order[kept]
    return stays


def _below(threshold: float, dtype: np.dtype) -> np.generic:
    """The largest number of the type that is not above the threshold: to be above one is to be above the other. torchvision compares with
    a double; numpy would round 0.1 up to float32 first."""
    rounded: np.generic = dtype.type(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, dtype.type(-np.inf))


def _overlap(sides: np.ndarray, groups: np.ndarray, some: np.ndarray, others: np.ndarray, limit: np.generic) -> np.ndarray:
    """Whether two boxes are of one class and overlap by more than the limit: bool [some, others]."""
    x0, y0, x1, y1 = sides[:, some][:, :, None]
    u0, v0, u1, v1 = sides[:, others][:, None, :]
    zero = sides.dtype.type(0)
    shared = np.maximum(zero, np.minimum(x1, u1) - np.maximum(x0, u0))
    shared *= np.maximum(zero, np.minimum(y1, v1) - np.maximum(y0, v0))
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is above nothing
        above: np.ndarray = shared / ((x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared) > limit
    above &= groups[some][:, None] == groups[others][None, :]
    return above


def _first(overlap: np.ndarray) -> np.ndarray:
    """Which boxes of a block stay, bool [m], from their overlap with each other."""
    later = np.triu(overlap, 1)
    stays = np.ones(len(later), bool)
    for i in np.flatnonzero(later.any(axis=1)):
        if stays[i]:
            stays &= ~later[i]
    return stays
