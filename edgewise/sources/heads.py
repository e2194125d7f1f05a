"""Which head reads the outputs of a detector: guesses from shapes and values, and the one that finds the most labelled objects.

    candidates = recognize({"output0": (None, 84, 8400)}, (640, 640))
    tried = choose(candidates, outputs, truths)  # best first

A guess is a spec of agent.decoding. Shapes leave several open (a sigmoid applied or not, boxes in pixels or shares); the outputs of a few
samples put them in order, and labelled samples decide.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np

from edgewise.agent.anchors import make_anchors
from edgewise.agent.decoding import Decoder, Detections
from edgewise.agent.detectors import Found
from edgewise.stats.box_matching import pairwise_iou

Shape = tuple[int | None, ...]
Shapes = Mapping[str, Shape]  # of one sample, without axes of length one behind the second
STRIDES = ((8, 16, 32), (8, 16, 32, 64))
FEW_BOXES = 1000  # more are rows of a grid or anchors, fewer are queries or what suppression left
SUPPRESS = 0.65
LOOKED_AT = 50  # boxes of a sample, the highest, whose places are looked at; they count by their scores
QUIET = 0.45  # a detector scores most of its boxes lower
SLACK = 1e-3  # that quantized scores may leave 0 to 1 by
SIGMOID = {"activation": "sigmoid"}
UNITS = {"pixels": "pixels", "share": "shares of the input"}
DECODED_SCORES = (("none", "none"), ("sigmoid", "none"), ("none", "first"), ("softmax", "first"), ("softmax", "last"))  # and background
ANCHORED_SCORES = (("softmax", "first"), ("sigmoid", "first"), ("sigmoid", "none"))
BLAZE = {"aspect_ratios": [1.0], "min_scale": 0.1484375, "max_scale": 0.75, "fixed_anchor_size": True}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {  # anchors by whose options others trained theirs; a head fits if the number of boxes does
    "MediaPipe, strides 8, 16, 16, 16": {**BLAZE, "strides": [8, 16, 16, 16]},
    "MediaPipe, stride 4": {**BLAZE, "strides": [4], "interpolated_scale_aspect_ratio": 0.0},
    "MediaPipe, strides 8, 16, 32, 32, 32": {**BLAZE, "strides": [8, 16, 32, 32, 32]},
    "SSD MobileNet": {
        **{"strides": [16, 32, 64, 128, 256, 512], "min_scale": 0.2, "max_scale": 0.95},
        **{"aspect_ratios": [1.0, 2.0, 0.5, 3.0, 0.3333], "reduce_boxes_in_lowest_layer": True},
    },
}


@dataclass(frozen=True)
class Candidate:
    """One way to read the outputs. words: what it stands for; spec: for agent.decoding; missing: settings that only the user knows."""

    words: str
    spec: Mapping[str, Any]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    """The objects of one sample. corners: float [k, 4] in pixels of the model's input; classes: int [k]."""

    corners: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Tried:
    """A candidate on labelled samples. found: share of the objects that it finds; located: the same if their classes are not compared;
    reason: why it could not be tried."""

    candidate: Candidate
    found: float = 0.0
    located: float = 0.0
    reason: str | None = None


@dataclass(frozen=True)
class _Outputs:
    """What is known of a model. size: height and width of its input."""

    shapes: Shapes
    size: tuple[int, int]

    def spec(self, head: str, **settings: Any) -> dict[str, Any]:
        return {"head": head, "size": [*self.size], **settings}


def recognize(shapes: Shapes, size: Sequence[int], outputs: Mapping[str, np.ndarray] | None = None) -> list[Candidate]:
    """Candidates, the most plausible first; none for outputs that look like no detector's.

    shapes: of the outputs by name, samples first, None where open. size: height and width of the input in pixels. outputs: those of a few
    samples, [n, ...], by which candidates are put in order.
    """
    known = {name: tuple(array.shape) for name, array in (outputs or {}).items()} or shapes
    squeezed = {name: _squeeze(tuple(shape)[1:]) for name, shape in known.items()}
    given = _Outputs(squeezed, (int(size[0]), int(size[1])))
    made = [candidate for rule in RULES for candidate in rule(given)]
    if not outputs:
        return made
    return sorted(made, key=lambda candidate: -plausibility(candidate, outputs))


def _squeeze(shape: Shape) -> Shape:
    """Without axes of length one, as long as there are more than two."""
    sides = list(shape)
    while len(sides) > 2 and 1 in sides:
        sides.remove(1)
    return tuple(sides)


def _tables(given: _Outputs) -> Iterator[tuple[str, int | None, int, bool]]:
    """(name, boxes, numbers of each, channels first) of every output of two axes, read in both ways; more boxes than numbers first."""
    for name, shape in given.shapes.items():
        if len(shape) == 2:
            ways = [(shape[0], shape[1], False), (shape[1], shape[0], True)]
            for boxes, numbers, channels_first in sorted(ways, key=lambda way: -(way[0] or np.inf)):
                if numbers is not None:
                    yield name, boxes, numbers, channels_first


def _cells(size: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """How many cells the grids of usual strides have -> the strides."""
    return {sum((size[0] // s) * (size[1] // s) for s in strides): strides for strides in STRIDES}


def one_table(given: _Outputs) -> Iterator[Candidate]:
    """YOLO in all its forms, where one output holds boxes and scores."""
    cells = _cells(given.size)
    for name, boxes, numbers, channels_first in _tables(given):
        if boxes is None or numbers < 5 or (boxes not in cells and boxes <= max(numbers, FEW_BOXES)):
            continue
        way = {"outputs": {"predictions": name}, "channels_first": channels_first}
        grids = [_yolox(given, way, numbers, cells[boxes])] if boxes in cells and numbers > 5 else []
        decoded = list(_yolo(given, way, numbers, objectness_first=not channels_first))
        yield from decoded + grids if channels_first else grids + decoded


def _yolox(given: _Outputs, way: Mapping[str, Any], numbers: int, strides: Sequence[int]) -> Candidate:
    return Candidate(f"YOLOX on grids, {numbers - 5} classes", given.spec("yolox", **way, strides=[*strides]))


def _yolo(given: _Outputs, way: Mapping[str, Any], numbers: int, objectness_first: bool) -> Iterator[Candidate]:
    more = _coefficients(given, numbers)
    for unit, objectness, activation in product(UNITS, (objectness_first, not objectness_first), ("none", "sigmoid")):
        classes = numbers - 4 - objectness - more
        if classes < 1:
            continue
        kind = "YOLOv5 to v7, with objectness" if objectness else "YOLOv8 to v12, without objectness"
        words = f"{kind}, {classes} classes, boxes in {UNITS[unit]}{', sigmoid to do' if activation == 'sigmoid' else ''}"
        plain = {"objectness": objectness, "box_unit": unit, "activation": activation, **({"classes": classes} if more else {})}
        yield Candidate(words, given.spec("yolo", **way, **plain))


def _coefficients(given: _Outputs, numbers: int) -> int:
    """How many of the numbers are coefficients of masks: as many as another output has prototypes."""
    maps = [shape for shape in given.shapes.values() if len(shape) == 3 and None not in shape]
    counts = [count for shape in maps if (count := min(side or 0 for side in shape)) < numbers - 4]
    return counts[0] if counts else 0


def end_to_end(given: _Outputs) -> Iterator[Candidate]:
    """Few rows of six numbers, before the coefficients of masks if there are some."""
    for name, boxes, numbers, channels_first in _tables(given):
        few = boxes is None or (numbers < boxes <= FEW_BOXES and boxes not in _cells(given.size))
        if few and numbers in (6, 6 + _coefficients(given, numbers)):
            for unit in UNITS:
                words = f"end to end: x0, y0, x1, y1 in {UNITS[unit]}, score, class"
                yield Candidate(
                    words, given.spec("end_to_end", outputs={"predictions": name}, channels_first=channels_first, box_unit=unit)
                )


def _pairs(given: _Outputs) -> Iterator[tuple[dict[str, str], int, int, int, bool]]:
    """(roles, boxes, numbers of a box, scores of a box, channels first) of two outputs with as many rows."""
    tables = list(_tables(given))
    for (name, boxes, numbers, first), (other, rows, scores, also) in permutations(tables, 2):
        if name == other or first != also or boxes != rows or boxes is None or boxes <= 4:
            continue
        if numbers == 4 or (4 < numbers < boxes and scores < numbers):
            yield {"boxes": name, "scores": other}, boxes, numbers, scores, first


def boxes_and_scores(given: _Outputs) -> Iterator[Candidate]:
    """DETR and its followers, SSD, and detectors that decode their boxes themselves."""
    for roles, boxes, numbers, scores, first in _pairs(given):
        if any(word in roles["boxes"].lower() for word in ("anchor", "prior")) or (scores == 4 and len(given.shapes) > 2):
            continue  # one of the two holds anchors
        way: dict[str, Any] = {"outputs": roles, "channels_first": first}
        yield from _ssd(given, way, boxes, numbers, scores)
        if numbers == 4:
            yield from _boxes_alone(given, way, boxes, scores)


def _boxes_alone(given: _Outputs, way: Mapping[str, Any], boxes: int, scores: int) -> Iterator[Candidate]:
    """Of outputs whose boxes have four numbers."""
    cells = _cells(given.size)
    if boxes in cells:
        words = f"boxes of YOLOX on grids, {scores} classes without objectness"
        yield Candidate(words, given.spec("grid", **way, **SIGMOID, strides=[*cells[boxes]]))
    elif boxes <= FEW_BOXES:
        yield from _detr(given, way, scores)
    else:
        words = f"SSD, {boxes} boxes counted from anchors that are not in the file"
        yield Candidate(words, given.spec("ssd", **way), missing=("anchors",))
    yield from _decoded(given, way, scores)


def _detr(given: _Outputs, way: Mapping[str, Any], scores: int) -> Iterator[Candidate]:
    shares = {"box_format": "center", "box_unit": "share"}
    softmax = given.spec("boxes_scores", **way, **shares, activation="softmax", background="last")
    sigmoid = given.spec("boxes_scores", **way, **shares, **SIGMOID, multi_label=True)
    with_none = Candidate(f"DETR: softmax over {scores - 1} classes and no object", softmax)
    without = Candidate(f"RT-DETR, RF-DETR: sigmoid of {scores} classes", sigmoid)
    yield from (without,) if scores == 1 else (without, with_none) if scores in (80, 91) else (with_none, without)


def _decoded(given: _Outputs, way: Mapping[str, Any], scores: int) -> Iterator[Candidate]:
    for unit, box_format, (activation, background) in product(UNITS, ("corners", "center"), DECODED_SCORES):
        if background != "none" and scores == 1:
            continue
        words = f"decoded boxes, {box_format} in {UNITS[unit]}, {_score_words(activation, background)}"
        plain = {"box_format": box_format, "box_unit": unit, "activation": activation, "background": background}
        yield Candidate(words, given.spec("boxes_scores", **way, **plain, nms_threshold=SUPPRESS))


def _score_words(activation: str, background: str) -> str:
    done = "scores as they are" if activation == "none" else f"{activation} to do"
    return done if background == "none" else f"{done}, the {background} class is no object"


def _ssd(given: _Outputs, way: Mapping[str, Any], boxes: int, numbers: int, scores: int) -> Iterator[Candidate]:
    """Anchors in a third output, or those of published options that make as many."""
    for name, shape in given.shapes.items():
        if name not in way["outputs"].values() and shape == (boxes, 4):
            whole = {**way, "outputs": {**way["outputs"], "anchors": name}}
            for (activation, background), box_format in product(ANCHORED_SCORES, ("center", "center_yx")):
                words = f"SSD, anchors in {name}, {box_format}, {_score_words(activation, background)}"
                yield Candidate(words, given.spec("ssd", **whole, activation=activation, background=background, box_format=box_format))
    for words, options in PUBLISHED.items():
        if len(make_anchors(options, given.size)) == boxes and (numbers > 4) == bool(options.get("fixed_anchor_size")):
            yield Candidate(f"SSD, anchors of {words}", given.spec("ssd", **way, anchors=dict(options), **_published(given, numbers)))


def _published(given: _Outputs, numbers: int) -> dict[str, Any]:
    if numbers > 4:  # MediaPipe: keypoints behind the box, offsets in pixels
        plain = {"variances": [1 / given.size[1], 1 / given.size[0]] * 2, "exponential": False, "background": "none"}
        return {**plain, **SIGMOID, "nms_threshold": 0.3}
    return {**SIGMOID, "background": "first", "box_format": "center_yx"}


def postprocessed(given: _Outputs) -> Iterator[Candidate]:
    """Boxes [k, 4] and two outputs of k numbers, with a count or without."""
    for boxes in (name for name, shape in given.shapes.items() if len(shape) == 2 and shape[1] == 4):
        most = given.shapes[boxes][0]
        alike = [name for name, shape in given.shapes.items() if shape in ((most,), (most, 1))]
        counts = [name for name, shape in given.shapes.items() if shape in ((), (1,)) and name not in alike]
        for classes, scores in _named(alike) if len(alike) == 2 else ():
            roles = {"boxes": boxes, "classes": classes, "scores": scores, **({"count": counts[0]} if counts else {})}
            for box_format, unit in (("corners_yx", "share"), ("corners", "pixels"), ("corners", "share")):
                words = f"suppressed in the file: {box_format} in {UNITS[unit]}, classes in {classes}, scores in {scores}"
                yield Candidate(words, given.spec("postprocessed", outputs=roles, box_format=box_format, box_unit=unit))


def _named(alike: Sequence[str]) -> list[tuple[str, ...]]:
    """(classes, scores) as the names of the outputs say, else both ways, as TFLite orders them first."""
    ways = list(permutations(alike))
    fits = [way for way in ways if any(word in way[0].lower() for word in ("class", "label")) or "score" in way[1].lower()]
    return fits or ways


def centers(given: _Outputs) -> Iterator[Candidate]:
    """A map for each class, and maps of two channels for sizes and offsets."""
    maps = {name: shape for name, shape in given.shapes.items() if len(shape) == 3}
    for first, axis, plane in ((True, 0, slice(1, 3)), (False, 2, slice(0, 2))):
        channels = {name: shape[axis] for name, shape in maps.items()}
        for heat in (name for name in maps if channels[name] != 2):
            alike = [name for name in maps if channels[name] == 2 and maps[name][plane] == maps[heat][plane]]
            for pair in permutations(alike, min(2, len(alike))) if alike else ():
                roles = {"heatmap": heat, **dict(zip(("sizes", "offsets"), pair, strict=False))}
                for activation in ("sigmoid", "none"):
                    words = f"CenterNet, {channels[heat]} classes, sizes in {pair[0]}, {activation}"
                    yield Candidate(words, given.spec("centers", outputs=roles, channels_first=first, activation=activation))


RULES: tuple[Callable[[_Outputs], Iterator[Candidate]], ...] = (postprocessed, boxes_and_scores, one_table, end_to_end, centers)


def plausibility(candidate: Candidate, outputs: Mapping[str, np.ndarray]) -> float:
    """How much the values look like detections if they are read in this way: 0 to 1, in steps of a quarter.

    Scores lie between 0 and 1, and most of many boxes are quiet; the highest boxes have a size and lie around the picture.
    """
    if candidate.missing:
        return 0.0
    decoder = Decoder(candidate.spec)
    try:
        found = decoder.read(outputs)
    except ValueError:
        return 0.0
    return float(np.floor(4 * np.mean([_looks_right(one, decoder.spec["size"]) for one in found])) / 4)


def _looks_right(found: Found, size: Sequence[int]) -> float:
    scores = found.scores if found.scores.ndim == 1 else found.scores.max(axis=1)
    if not len(scores) or not (found.scores.min() >= -SLACK and scores.max() <= 1 + SLACK):
        return 0.0
    if len(scores) > FEW_BOXES and np.median(scores) > QUIET:
        return 0.0
    highest = np.argsort(-scores, kind="stable")[:LOOKED_AT]
    corners = found.corners[highest].astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        sides, middle = corners[:, 2:] - corners[:, :2], (corners[:, 2:] + corners[:, :2]) / 2
    extent = np.array([size[1], size[0]])
    fits = (sides > 1) & (sides < 1.5 * extent) & (middle > -0.1 * extent) & (middle < 1.1 * extent)
    return float(np.average(fits.all(axis=1), weights=scores[highest] + 2 * SLACK))


def choose(candidates: Sequence[Candidate], outputs: Mapping[str, np.ndarray], truths: Sequence[Truth]) -> list[Tried]:
    """All candidates, the one that finds the largest share of the labelled objects first, ties in their given order.

    Of each sample as many of its highest detections count as it has objects; an object is found by one of its class that overlaps it by
    half or more. outputs: [n, ...] by name; truths: of the same samples.
    """
    return sorted((_try(candidate, outputs, truths) for candidate in candidates), key=lambda tried: (-tried.found, -tried.located))


def _try(candidate: Candidate, outputs: Mapping[str, np.ndarray], truths: Sequence[Truth]) -> Tried:
    if candidate.missing:
        return Tried(candidate, reason=f"{', '.join(candidate.missing)} must be given")
    counts = [len(truth.classes) for truth in truths]
    try:
        samples = Decoder({**candidate.spec, "max_detections": max(counts, default=1) or 1})(outputs)  # no more count
    except ValueError as error:
        return Tried(candidate, reason=str(error))
    total = max(sum(counts), 1)
    hits = [[_count_found(one, truth, by_class) for by_class in (True, False)] for one, truth in zip(samples, truths, strict=True)]
    found, located = np.sum(hits, axis=0) / total if hits else (0.0, 0.0)
    return Tried(candidate, float(found), float(located))


def _count_found(found: Detections, truth: Truth, by_class: bool) -> int:
    count = len(truth.classes)
    corners, classes = found.corners[:count], found.classes[:count]
    d, t = (axis.ravel() for axis in np.indices((len(corners), count)))
    overlaps = pairwise_iou(corners[d], truth.corners[t], np.zeros(len(d), bool)).reshape(len(corners), count)
    if by_class:
        overlaps = np.where(classes[:, None] == truth.classes[None, :], overlaps, 0.0)
    hits = 0
    for row in overlaps:
        best = int(row.argmax())
        if row[best] >= 0.5:
            hits, overlaps[:, best] = hits + 1, 0.0
    return hits
