"""Heads recognized by shapes, put in order by values, chosen by labelled samples. The outputs are made backwards from known objects."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgewise.agent import anchors, preprocess
from edgewise.agent.decoding import Decoder
from edgewise.agent.geometry import Geometry
from edgewise.sources import heads
from edgewise.sources.heads import Candidate, Truth, choose, recognize

SIDE = 128
SIZE = (SIDE, SIDE)
CELLS = 16 * 16 + 8 * 8 + 4 * 4
CLASSES = 5
Arrays = dict[str, np.ndarray]


@pytest.mark.parametrize(
    ("shapes", "size", "head", "settings"),
    [
        ({"output0": (None, 84, 8400)}, 640, "yolo", {"channels_first": True, "objectness": False, "activation": "none"}),
        ({"output0": (1, 84, 2100)}, 320, "yolo", {"channels_first": True, "objectness": False}),
        ({"output0": (1, 25200, 85)}, 640, "yolo", {"channels_first": False, "objectness": True, "box_unit": "pixels"}),
        ({"output0": (1, 300, 6)}, 640, "end_to_end", {"box_unit": "pixels"}),
        ({"output0": (1, None, 6)}, 640, "end_to_end", {"channels_first": False}),
        ({"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}, 640, "yolo", {"classes": 80, "objectness": False}),
        ({"output0": (1, 300, 38), "output1": (1, 32, 160, 160)}, 640, "end_to_end", {}),
        ({"output": (1, 3549, 85)}, 416, "yolox", {"strides": [8, 16, 32]}),
        ({"output": (1, 34000, 85)}, 1280, "yolox", {"strides": [8, 16, 32, 64]}),
        ({"boxes": (1, 4, 3549), "scores": (1, 80, 3549)}, 416, "grid", {"channels_first": True, "strides": [8, 16, 32]}),
        ({"pred_boxes": (1, 100, 4), "logits": (1, 100, 92)}, 800, "boxes_scores", {"activation": "softmax", "background": "last"}),
        ({"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, 640, "boxes_scores", {"activation": "sigmoid", "multi_label": True}),
        ({"loc": (1, 8732, 4), "conf": (1, 8732, 81)}, 300, "ssd", {}),
        ({"ploc": (1, 4, 8732), "plabel": (1, 81, 8732)}, 300, "ssd", {"channels_first": True}),
        ({"a": (1, 8732, 4), "b": (1, 8732, 81), "priors": (1, 8732, 4)}, 300, "ssd",
         {"outputs": {"boxes": "a", "scores": "b", "anchors": "priors"}}),
        ({"raw_boxes": (1, 1917, 1, 4), "raw_scores": (1, 1917, 91)}, 300, "ssd", {"box_format": "center_yx", "background": "first"}),
        ({"regressors": (1, 896, 16), "classificators": (1, 896, 1)}, 128, "ssd", {"exponential": False, "variances": [1 / 128] * 4}),
        ({"regressors": (1, 2304, 16), "classificators": (1, 2304, 1)}, 192, "ssd", {"background": "none"}),
        ({"Identity": (1, 2016, 18), "Identity_1": (1, 2016, 1)}, 192, "ssd", {"background": "none"}),
        ({"Identity": (1, 2254, 12), "Identity_1": (1, 2254, 1)}, 224, "ssd", {"background": "none"}),
        ({"P": (1, 10, 4), "P:1": (1, 10), "P:2": (1, 10), "P:3": (1,)}, 300, "postprocessed",
         {"box_format": "corners_yx", "outputs": {"boxes": "P", "classes": "P:1", "scores": "P:2", "count": "P:3"}}),
        ({"num_dets": (1, 1), "det_boxes": (1, 100, 4), "det_scores": (1, 100), "det_classes": (1, 100)}, 640, "postprocessed",
         {"outputs": {"boxes": "det_boxes", "classes": "det_classes", "scores": "det_scores", "count": "num_dets"}}),
        ({"hm": (1, 80, 128, 128), "wh": (1, 2, 128, 128), "reg": (1, 2, 128, 128)}, 512, "centers",
         {"outputs": {"heatmap": "hm", "sizes": "wh", "offsets": "reg"}, "channels_first": True}),
        ({"hm": (1, 128, 128, 80), "wh": (1, 128, 128, 2)}, 512, "centers", {"channels_first": False}),
    ],
)  # fmt: skip
def test_shapes_alone(shapes, size, head, settings):
    first, *_ = recognize(shapes, (size, size))
    assert first.spec["head"] == head and first.spec.items() >= settings.items(), first
    assert first.missing or Decoder(first.spec), "the spec is complete"


def test_anchors_that_only_the_user_has_are_said():
    first, second, *_ = recognize({"loc": (1, 8732, 4), "conf": (1, 8732, 81)}, (300, 300))
    assert first.missing == ("anchors",) and "8732 boxes counted from anchors that are not in the file" in first.words
    assert second.spec["head"] == "boxes_scores", "or the file decodes them itself"


@pytest.mark.parametrize(
    "shapes",
    [
        {"logits": (None, 1000)}, {"probabilities": (1, 1, 1, 1001)}, {"map": (1, 21, 512, 512)}, {"hidden": (1, 197, 768)},
        {"text": (1, 40, 97)}, {"embedding": (1, 512), "logits": (1, 10)},
    ],
    ids=str,
)  # fmt: skip
def test_outputs_of_no_detector(shapes):
    assert recognize(shapes, (224, 224)) == []


def scene(seed: int, samples: int = 4) -> list[Truth]:
    """Objects that do not touch: each in its own quarter of the picture."""
    rng = np.random.default_rng(seed)
    truths = []
    for _ in range(samples):
        middle = np.array([[32, 32], [96, 32], [32, 96], [96, 96]]) + rng.uniform(-8, 8, (4, 2))
        half = rng.uniform(8, 20, (4, 2))
        truths.append(Truth(np.concatenate([middle - half, middle + half], axis=1), rng.integers(0, CLASSES, 4)))
    return truths


def inverse_sigmoid(shares):
    return np.log(shares / (1 - shares))


def rows_of(truths: list[Truth], count: int, of: Callable[[np.ndarray], np.ndarray], order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(boxes [n, count, 4], scores [n, count, classes]): the objects in rows of `order`, quiet noise elsewhere. of: what becomes of x, y,
    width, height in pixels."""
    rng = np.random.default_rng(len(truths))
    boxes = np.concatenate([rng.uniform(0, SIDE, (len(truths), count, 2)), rng.uniform(8, 40, (len(truths), count, 2))], axis=2)
    scores = rng.uniform(0.001, 0.1, (len(truths), count, CLASSES))
    for i, truth in enumerate(truths):
        places = order[: len(truth.classes)]
        corners = truth.corners
        boxes[i, places] = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
        scores[i, places, truth.classes] = 0.9
    return of(boxes), scores


def plain(boxes):
    return boxes


def shares(boxes):
    return boxes / SIDE


ORDER = np.random.default_rng(9).permutation(CELLS)


def yolov8(truths, of=plain):
    boxes, scores = rows_of(truths, CELLS, of, ORDER)
    return {"out": np.concatenate([boxes, scores], axis=2).transpose(0, 2, 1)}


def yolov5(truths, activation=plain):
    boxes, scores = rows_of(truths, 3 * CELLS, plain, ORDER)
    certain = np.where(scores.max(axis=2, keepdims=True) > 0.5, 0.95, 0.02)
    return {"out": np.concatenate([boxes, activation(certain), activation(scores)], axis=2)}


def on_grids(boxes):
    """Rows of YOLOX: whatever stands in a row is counted from its cell."""
    cells, strides = anchors.grid_cells(SIZE, [8, 16, 32])
    return np.concatenate([boxes[..., :2] / strides - cells, np.log(boxes[..., 2:] / strides)], axis=-1)


def yolox(truths):
    boxes, scores = rows_of(truths, CELLS, on_grids, ORDER)
    certain = np.where(scores.max(axis=2, keepdims=True) > 0.5, 0.95, 0.02)
    return {"out": np.concatenate([boxes, certain, scores], axis=2)}


def end_to_end(truths, of=plain):
    boxes, scores = rows_of(truths, 100, of, np.arange(100))
    corners = np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], axis=2)
    return {"out": np.concatenate([corners, scores.max(axis=2, keepdims=True), scores.argmax(axis=2)[..., None]], axis=2)}


def detr(truths):
    boxes, scores = rows_of(truths, 100, shares, np.arange(100))
    nothing = 1 - scores.max(axis=2, keepdims=True) * 0.99
    return {"boxes": boxes, "logits": np.log(np.concatenate([scores, nothing], axis=2))}


def rt_detr(truths):
    boxes, scores = rows_of(truths, 300, shares, np.arange(300))
    return {"boxes": boxes, "logits": inverse_sigmoid(scores)}


def tflite(truths, names=("p", "p:1", "p:2", "p:3")):
    boxes, scores = rows_of(truths, 10, shares, np.arange(10))
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    made = [np.concatenate([low[..., ::-1], high[..., ::-1]], axis=2), scores.argmax(axis=2) * 1.0, scores.max(axis=2)]
    return dict(zip(names, [*made, np.full(len(truths), 10.0)], strict=True))


def ssd(truths):
    """With anchors as an output, a background first, y before x."""
    boxes, scores = rows_of(truths, 400, shares, np.random.default_rng(5).permutation(400))
    rng = np.random.default_rng(4)
    fixed = np.concatenate([rng.uniform(0, 1, (400, 2)), rng.uniform(0.1, 0.5, (400, 2))], axis=1)
    offsets = np.concatenate([(boxes[..., :2] - fixed[:, :2]) / fixed[:, 2:] / 0.1, np.log(boxes[..., 2:] / fixed[:, 2:]) / 0.2], axis=2)
    logits = np.log(np.concatenate([1 - scores.max(axis=2, keepdims=True) * 0.99, scores], axis=2))
    return {"loc": offsets[..., [1, 0, 3, 2]], "conf": logits, "priors": np.broadcast_to(fixed, (len(truths), 400, 4))}


def decoded(truths):
    boxes, scores = rows_of(truths, 2000, plain, np.arange(2000))
    return {"boxes": np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], axis=2), "scores": scores}


def centernet(truths):
    """Names that say nothing, offsets before sizes."""
    rng, form = np.random.default_rng(8), (len(truths), 2, 32, 32)
    maps = {
        "a": inverse_sigmoid(rng.uniform(0.001, 0.01, (len(truths), CLASSES, 32, 32))),
        "b": rng.random(form),
        "c": rng.uniform(1, 5, form),
    }
    for i, truth in enumerate(truths):
        middle, sides = (truth.corners[:, :2] + truth.corners[:, 2:]) / 8, (truth.corners[:, 2:] - truth.corners[:, :2]) / 4
        x, y = np.floor(middle).astype(int).T
        maps["a"][i, truth.classes, y, x] = inverse_sigmoid(0.9)
        maps["b"][i, :, y, x] = middle - np.floor(middle)
        maps["c"][i, :, y, x] = sides
    return maps


MADE: dict[str, tuple[Callable[[list[Truth]], Arrays], dict[str, object]]] = {
    "yolov8": (yolov8, {"head": "yolo", "objectness": False, "activation": "none"}),
    "yolov8 in shares": (lambda t: yolov8(t, shares), {"head": "yolo", "box_unit": "share"}),
    "yolov5": (yolov5, {"head": "yolo", "objectness": True, "activation": "none"}),
    "yolov5 without its sigmoid": (lambda t: yolov5(t, inverse_sigmoid), {"head": "yolo", "objectness": True, "activation": "sigmoid"}),
    "yolox": (yolox, {"head": "yolox"}),
    "end to end": (end_to_end, {"head": "end_to_end", "box_unit": "pixels"}),
    "end to end in shares": (lambda t: end_to_end(t, shares), {"head": "end_to_end", "box_unit": "share"}),
    "detr": (detr, {"head": "boxes_scores", "activation": "softmax", "background": "last"}),
    "rt-detr": (rt_detr, {"head": "boxes_scores", "activation": "sigmoid"}),
    "tflite": (tflite, {"head": "postprocessed", "box_format": "corners_yx"}),
    "tflite, scores first": (lambda t: tflite(t, ("p", "p:2", "p:1", "p:3")), {"head": "postprocessed"}),
    "ssd": (ssd, {"head": "ssd", "background": "first", "box_format": "center_yx"}),
    "decoded": (decoded, {"head": "boxes_scores", "box_format": "corners", "box_unit": "pixels", "activation": "none"}),
    "centernet": (centernet, {"head": "centers", "activation": "sigmoid", "outputs": {"heatmap": "a", "sizes": "c", "offsets": "b"}}),
}


@pytest.mark.parametrize("kind", MADE)
def test_labelled_samples_decide(kind):
    make, settings = MADE[kind]
    truths = scene(1)
    outputs = make(truths)
    assert next(iter(outputs.values())).shape[0] == 4
    first, *others = choose(recognize({}, SIZE, outputs), outputs, truths)
    assert first.found == first.located == 1.0
    assert first.candidate.spec.items() >= settings.items(), first.candidate
    assert len(others) and min(tried.found for tried in others) < 1


@pytest.mark.parametrize("kind", MADE)
def test_values_bring_the_right_one_to_the_front(kind):
    """Without labels: among the candidates that look right is the one that is, and what stands before it looks right too."""
    make, settings = MADE[kind]
    outputs = make(scene(2))
    ordered = recognize({}, SIZE, outputs)
    place = next(i for i, candidate in enumerate(ordered) if candidate.spec.items() >= settings.items())
    assert place <= 3 and heads.plausibility(ordered[place], outputs) == 1.0
    assert heads.plausibility(ordered[-1], outputs) < 1.0


def test_wrong_numbers_of_classes_show_as_located_but_not_found():
    truths = scene(3)
    shifted = [Truth(truth.corners, truth.classes + 1) for truth in truths]
    outputs = yolov8(truths)
    first = choose(recognize({}, SIZE, outputs), outputs, shifted)[0]
    assert first.found < 0.5 and first.located == 1.0


def test_candidates_that_cannot_be_tried_come_last_with_the_reason():
    truths = scene(4)
    outputs = yolov8(truths)
    fits = recognize({}, SIZE, outputs)[0]
    unknown = Candidate("anchors are missing", {"head": "ssd"}, missing=("anchors",))
    other = Candidate("another output", {**fits.spec, "outputs": {"predictions": "gone"}})
    tried = choose([unknown, other, fits], outputs, truths)
    assert tried[0].candidate is fits
    assert tried[1].reason == "anchors must be given" and "the model has no output 'gone'" in (tried[2].reason or "")


def test_pictures_without_objects_say_nothing():
    outputs = yolov8(scene(5))
    empty = [Truth(np.zeros((0, 4)), np.zeros(0, np.int64))] * 4
    assert {tried.found for tried in choose(recognize({}, SIZE, outputs), outputs, empty)} == {0.0}


def test_nan_is_not_plausible():
    outputs = yolov8(scene(6))
    outputs["out"][:, 4:, ::2] = np.nan
    assert {heads.plausibility(candidate, outputs) for candidate in recognize({}, SIZE, outputs)} == {0.0}


def read_labels(path: Path, geometry: Geometry) -> Truth:
    """YOLO's: class, center x and y, width and height, as shares of the picture."""
    rows = np.array([line.split() for line in path.read_text().splitlines()], np.float64)
    corners = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], axis=1)
    return Truth(geometry.boxes_to_input(corners * ([geometry.width, geometry.height] * 2)), rows[:, 0].astype(np.int64))


def test_yolox_nano_on_its_pictures(shared_data):
    """From the shape 1x3549x85 of the published file, and by 4 pictures of COCO."""
    import onnxruntime

    spec = {
        "size": [416, 416], "channels": 3, "resize": "letterbox", "pad_value": 114, "anchor": "corner", "stride": None, "scale": 1.0,
        "mean": [0.0], "std": [1.0], "order": "BGR", "layout": "NCHW", "dtype": "float32",
    }  # fmt: skip
    session = onnxruntime.InferenceSession(shared_data / "pretrained/yolox/yolox_nano.onnx")
    paths = sorted((shared_data / "coco128/images/val2017").iterdir())[:4]
    pictures = [preprocess.decode_picture(str(path)) for path in paths]
    feeds = [preprocess.normalize(preprocess.resize_to_spec(picture, spec)[None], spec) for picture in pictures]
    answers = np.concatenate([session.run(None, {session.get_inputs()[0].name: feed})[0] for feed in feeds])
    labels = [shared_data / f"coco128/labels/val2017/{path.stem}.txt" for path in paths]
    truths = [read_labels(path, Geometry.of(spec, *picture.shape[:2])) for path, picture in zip(labels, pictures, strict=True)]
    assert answers.shape == (4, 3549, 85)
    candidates = recognize({}, (416, 416), {"output": answers})
    first, *others = choose(candidates, {"output": answers}, truths)
    assert first.candidate is candidates[0] and first.candidate.spec["head"] == "yolox"
    assert first.found > 0.3 and max(tried.found for tried in others) < 0.05
