"""Detections from the outputs of detectors: each head against plain loops over its published formula, in float64."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest

from edgewise.agent import anchors, decoding, detectors
from edgewise.agent.decoding import Decoder, decode
from edgewise.agent.detectors import Found
from tests.unit.test_nms import by_loop

SIZE = [64, 96]  # height, width
ALL = {"size": SIZE, "score_threshold": 0.0, "nms_threshold": None, "max_detections": 100_000, "multi_label": False}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [power / sum(powers) for power in powers]


def xyxy(cx, cy, w, h):
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def best(scores):
    """(score, class) of the highest, the first of equals."""
    highest = max(scores)
    return highest, list(scores).index(highest)


def held(found, expected):
    """found: Detections of one sample. expected: (corners, score, class) in the order of the rows; sorted here as a stable sort does."""
    ordered = sorted((row for row in expected if row[1] > 0), key=lambda row: -row[1])
    assert len(found) == len(ordered) > 0
    assert found.corners.dtype == found.scores.dtype == np.float32 and found.classes.dtype == np.int64
    np.testing.assert_allclose(found.corners, np.array([row[0] for row in ordered], np.float32), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(found.scores, np.array([row[1] for row in ordered], np.float32), rtol=1e-6)
    assert found.classes.tolist() == [row[2] for row in ordered]


def rng_for(name: str) -> np.random.Generator:
    return np.random.default_rng(sum(map(ord, name)))


def raw_rows(rng, samples, count, classes, objectness):
    boxes = np.concatenate([rng.uniform(0, 90, (samples, count, 2)), rng.uniform(2, 40, (samples, count, 2))], axis=2)
    return np.concatenate([boxes, rng.random((samples, count, classes + objectness))], axis=2)


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("objectness", [True, False])
@pytest.mark.parametrize("unit", ["pixels", "share"])
def test_yolo(channels_first, objectness, unit):
    rows = raw_rows(rng_for("yolo"), 2, 50, 7, objectness)
    if unit == "share":
        rows[:, :, :4] /= 100
    spec = {**ALL, "head": "yolo", "outputs": {"predictions": "out"}, "channels_first": channels_first, "objectness": objectness}
    found = decode({"out": rows.transpose(0, 2, 1) if channels_first else rows}, {**spec, "box_unit": unit})
    factors = [96, 64, 96, 64] if unit == "share" else [1] * 4
    for sample, one in zip(rows, found, strict=True):
        expected = []
        for row in sample:
            scores = [row[4] * s for s in row[5:]] if objectness else list(row[4:])
            expected.append(([side * f for side, f in zip(xyxy(*row[:4]), factors, strict=True)], *best(scores)))
        held(one, expected)


def test_yolo_with_a_sigmoid_to_do_and_numbers_of_masks_to_leave_out():
    rows = raw_rows(rng_for("masks"), 1, 40, 5 + 32, 1)
    rows[:, :, 4:] = rows[:, :, 4:] * 20 - 10
    spec = {**ALL, "head": "yolo", "outputs": {"predictions": "out"}, "objectness": True, "activation": "sigmoid", "classes": 5}
    expected = [(xyxy(*row[:4]), *best([sigmoid(row[4]) * sigmoid(s) for s in row[5:10]])) for row in rows[0]]
    held(decode({"out": rows}, spec)[0], expected)


def test_multi_label_keeps_each_class_of_a_box():
    rows = raw_rows(rng_for("multi"), 1, 30, 4, 0)
    spec = {**ALL, "head": "yolo", "outputs": {"predictions": "out"}, "multi_label": True, "score_threshold": 0.5}
    held(decode({"out": rows}, spec)[0], [(xyxy(*row[:4]), s, c) for row in rows[0] for c, s in enumerate(row[4:]) if s > 0.5])


def test_a_box_may_have_several_classes_by_default_where_boxes_are_suppressed():
    assert decoding.complete(YOLO)["multi_label"]
    assert not decoding.complete({**YOLO, "nms_threshold": None})["multi_label"]
    assert not decoding.complete({"head": "boxes_scores", "size": SIZE, "outputs": {"boxes": "a", "scores": "b"}})["multi_label"]


GRIDS = [(x, y, stride) for stride in (8, 16, 32) for y in range(64 // stride) for x in range(96 // stride)]


def yolox_box(row, x, y, stride):
    return xyxy((row[0] + x) * stride, (row[1] + y) * stride, math.exp(row[2]) * stride, math.exp(row[3]) * stride)


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_yolox(activation):
    rng = rng_for("yolox")
    rows = rng.normal(0, 1, (2, len(GRIDS), 5 + 6))
    if activation == "none":
        rows[:, :, 4:] = rng.random((2, len(GRIDS), 7))
    found = decode({"out": rows}, {**ALL, "head": "yolox", "outputs": {"predictions": "out"}, "activation": activation})
    act = sigmoid if activation == "sigmoid" else float
    for sample, one in zip(rows, found, strict=True):
        held(
            one, [(yolox_box(row, *cell), *best([act(row[4]) * act(s) for s in row[5:]])) for row, cell in zip(sample, GRIDS, strict=True)]
        )


def test_grid():
    """The boxes of YOLOX and the scores in outputs of their own, each [numbers, boxes]."""
    rng = rng_for("grid")
    boxes, logits = rng.normal(0, 1, (2, 4, len(GRIDS))), rng.normal(0, 3, (2, 6, len(GRIDS)))
    found = decode({"b": boxes, "s": logits}, {**ALL, "head": "grid", "outputs": {"boxes": "b", "scores": "s"}})
    for i, one in enumerate(found):
        expected = [(yolox_box(boxes[i, :, k], *cell), *best([sigmoid(x) for x in logits[i, :, k]])) for k, cell in enumerate(GRIDS)]
        held(one, expected)


def test_end_to_end():
    rng = rng_for("end")
    rows = np.concatenate([rng.uniform(0, 90, (2, 300, 4)), rng.random((2, 300, 1)), rng.integers(0, 80, (2, 300, 1))], axis=2)
    rows[:, 200:, 4] = 0  # how they fill up
    for sample, one in zip(rows, decode({"out": rows}, {**ALL, "head": "end_to_end", "outputs": {"predictions": "out"}}), strict=True):
        held(one, [(list(row[:4]), row[4], int(row[5])) for row in sample])


@pytest.mark.parametrize("kind", ["tflite", "tensorrt"])
def test_postprocessed(kind):
    rng = rng_for(kind)
    boxes, scores, classes = rng.random((1, 25, 4)), rng.random((1, 25)), rng.integers(0, 90, (1, 25)).astype(np.float64)
    count = np.array([10.0]) if kind == "tflite" else np.array([[10]])
    named = {"boxes": "a", "scores": "b", "classes": "c", "count": "d"}
    spec = {**ALL, "head": "postprocessed", "outputs": named}
    if kind == "tensorrt":
        spec |= {"box_format": "corners", "box_unit": "pixels"}
    found = decode({"a": boxes, "b": scores, "c": classes, "d": count}, spec)[0]
    expected = []
    for i in range(10):
        a, b, c, d = boxes[0, i]
        corners = [b * 96, a * 64, d * 96, c * 64] if kind == "tflite" else [a, b, c, d]
        expected.append((corners, scores[0, i], int(classes[0, i])))
    held(found, expected)
    without = {role: name for role, name in named.items() if role != "count"}
    assert len(decode({"a": boxes, "b": scores, "c": classes}, {**spec, "outputs": without})[0]) == 25


@pytest.mark.parametrize("kind", ["detr", "rt-detr"])
def test_detr(kind):
    rng = rng_for(kind)
    boxes, logits = rng.random((2, 100, 4)), rng.normal(0, 3, (2, 100, 12))
    plain = {"activation": "softmax", "background": "last"} if kind == "detr" else {"activation": "sigmoid", "multi_label": True}
    spec = {**ALL, "head": "boxes_scores", "outputs": {"boxes": "pred_boxes", "scores": "logits"}, "box_unit": "share", **plain}
    found = decode({"pred_boxes": boxes, "logits": logits}, spec)
    for i, one in enumerate(found):
        expected = []
        for box, row in zip(boxes[i], logits[i], strict=True):
            corners = [side * factor for side, factor in zip(xyxy(*box), [96, 64, 96, 64], strict=True)]
            if kind == "detr":
                expected.append((corners, *best(softmax(list(row))[:-1])))
            else:
                expected += [(corners, sigmoid(logit), c) for c, logit in enumerate(row)]
        held(one, expected)


GIVEN = np.random.default_rng(3).uniform(0.1, 0.9, (40, 4))


@pytest.mark.parametrize("order", ["center", "center_yx"])
@pytest.mark.parametrize("form", ["rows", "channels first", "in one row", "with an axis of one", "anchors as an output"])
def test_ssd(order, form):
    rng = rng_for("ssd")
    offsets, logits = rng.normal(0, 2, (2, 40, 4)), rng.normal(0, 2, (2, 40, 6))
    shaped = {
        "channels first": (offsets.transpose(0, 2, 1), logits.transpose(0, 2, 1)),
        "in one row": (offsets.reshape(2, -1), logits.reshape(2, -1)),
        "with an axis of one": (offsets[:, :, None], logits[:, None]),
    }.get(form, (offsets, logits))
    outputs = {"loc": shaped[0], "conf": shaped[1], "priors": np.broadcast_to(GIVEN, (2, 40, 4))}
    spec = {**ALL, "head": "ssd", "outputs": {"boxes": "loc", "scores": "conf"}, "box_format": order}
    if form == "anchors as an output":
        spec["outputs"] = {**spec["outputs"], "anchors": "priors"}
    else:
        spec["anchors"] = GIVEN.tolist()
    found = decode(outputs, {**spec, "channels_first": form == "channels first"})
    for i, one in enumerate(found):
        expected = []
        for raw, row, (cx, cy, w, h) in zip(offsets[i], logits[i], GIVEN, strict=True):
            tx, ty, tw, th = raw if order == "center" else (raw[1], raw[0], raw[3], raw[2])
            box = xyxy(cx + tx * 0.1 * w, cy + ty * 0.1 * h, w * math.exp(tw * 0.2), h * math.exp(th * 0.2))
            expected.append(([box[0] * 96, box[1] * 64, box[2] * 96, box[3] * 64], *best(softmax(list(row))[1:])))
        held(one, expected)


FACE = {"strides": [8, 16, 16, 16], "min_scale": 0.1484375, "max_scale": 0.75, "aspect_ratios": [1.0], "fixed_anchor_size": True}
COCO_SSD = {
    "strides": [16, 32, 64, 128, 256, 512], "min_scale": 0.2, "max_scale": 0.95, "aspect_ratios": [1.0, 2.0, 0.5, 3.0, 0.3333],
    "reduce_boxes_in_lowest_layer": True,
}  # fmt: skip


def ssd_anchors_calculator(options, size):
    """GenerateAnchors of mediapipe/calculators/tflite/ssd_anchors_calculator.cc, line by line."""
    strides, found, layer_id = options["strides"], [], 0

    def scale_of(index):
        if len(strides) == 1:
            return (options["min_scale"] + options["max_scale"]) * 0.5
        return options["min_scale"] + (options["max_scale"] - options["min_scale"]) * 1.0 * index / (len(strides) - 1.0)

    while layer_id < len(strides):
        heights, widths, ratios, scales = [], [], [], []
        last = layer_id
        while last < len(strides) and strides[last] == strides[layer_id]:
            scale = scale_of(last)
            if last == 0 and options.get("reduce_boxes_in_lowest_layer"):
                ratios += [1.0, 2.0, 0.5]
                scales += [0.1, scale, scale]
            else:
                for ratio in options["aspect_ratios"]:
                    ratios.append(ratio)
                    scales.append(scale)
                scale_next = 1.0 if last == len(strides) - 1 else scale_of(last + 1)
                scales.append(math.sqrt(scale * scale_next))
                ratios.append(1.0)
            last += 1
        for ratio, scale in zip(ratios, scales, strict=True):
            heights.append(scale / math.sqrt(ratio))
            widths.append(scale * math.sqrt(ratio))
        rows, columns = math.ceil(size[0] / strides[layer_id]), math.ceil(size[1] / strides[layer_id])
        for y in range(rows):
            for x in range(columns):
                for i in range(len(heights)):
                    sides = [1.0, 1.0] if options.get("fixed_anchor_size") else [widths[i], heights[i]]
                    found.append([(x + 0.5) / columns, (y + 0.5) / rows, *sides])
        layer_id = last
    return np.array(found)


@pytest.mark.parametrize(("options", "size", "count"), [(FACE, [128, 128], 896), (COCO_SSD, [300, 300], 1917), (FACE, [192, 256], 2688)])
def test_anchors_from_mediapipes_options(options, size, count):
    made = anchors.make_anchors(options, size)
    assert len(made) == count
    np.testing.assert_allclose(made, ssd_anchors_calculator(options, size), rtol=1e-12)


def test_mediapipes_face_detector():
    """TensorsToDetectionsCalculator: reverse_output_order, scales of 128, keypoints behind the box, a sigmoid over clipped scores."""
    rng = rng_for("face")
    boxes, scores = rng.normal(0, 30, (1, 896, 16)), rng.normal(0, 80, (1, 896, 1))
    spec = {
        **ALL, "size": [128, 128], "head": "ssd", "outputs": {"boxes": "regressors", "scores": "classificators"}, "anchors": FACE,
        "variances": [1 / 128] * 4, "exponential": False, "activation": "sigmoid", "background": "none",
    }  # fmt: skip
    expected = []
    for raw, score, (cx, cy, w, h) in zip(boxes[0], scores[0, :, 0], ssd_anchors_calculator(FACE, [128, 128]), strict=True):
        box = xyxy(raw[0] / 128 * w + cx, raw[1] / 128 * h + cy, raw[2] / 128 * w, raw[3] / 128 * h)
        expected.append(([side * 128 for side in box], sigmoid(min(max(score, -100), 100)), 0))
    found = decode({"regressors": boxes, "classificators": scores}, {**spec, "score_threshold": 1e-6})[0]
    held(found, [row for row in expected if row[1] > 1e-6])


@pytest.mark.parametrize("unit", ["cells", "pixels"])
@pytest.mark.parametrize("channels_first", [True, False])
def test_centers(unit, channels_first):
    rng = rng_for("centers")
    heat, sizes, offsets = rng.normal(-1, 2, (2, 3, 16, 24)), rng.uniform(1, 9, (2, 2, 16, 24)), rng.random((2, 2, 16, 24))
    heat[0, 1, 4:6, 7] = 9.0  # a peak of two equal cells is two peaks
    outputs = {"hm": heat, "wh": sizes, "reg": offsets}
    spec = {**ALL, "head": "centers", "outputs": {"heatmap": "hm", "sizes": "wh", "offsets": "reg"}, "box_unit": unit}
    given = outputs if channels_first else {name: array.transpose(0, 2, 3, 1) for name, array in outputs.items()}
    for sample, one in enumerate(decode(given, {**spec, "channels_first": channels_first})):
        expected = []
        for c in range(3):
            for y in range(16):
                for x in range(24):
                    around = heat[sample, c, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                    if heat[sample, c, y, x] == around.max():
                        w, h = sizes[sample, :, y, x] * (4 if unit == "cells" else 1)
                        dx, dy = offsets[sample, :, y, x]
                        expected.append((xyxy((x + dx) * 4, (y + dy) * 4, w, h), sigmoid(heat[sample, c, y, x]), c))
        held(one, expected)


def of_the_user(arrays, spec):
    return arrays["raw"][:, :4], arrays["raw"][:, 4], arrays["raw"][:, 5]


def of_the_user_by_class(arrays, spec):
    return arrays["raw"][:, :4], arrays["raw"][:, 4:]


def that_returns_too_little(arrays, spec):
    return arrays["raw"][:, :3], arrays["raw"][:, 4]


@pytest.mark.parametrize("name", ["of_the_user", "of_the_user_by_class"])
def test_a_function_of_the_user(name):
    raw = np.array([[[0, 0, 9, 9, 0.5, 0.25], [1, 1, 5, 5, 0.75, 0.5]]])
    found = decode({"raw": raw}, {**ALL, "head": "callable", "callable": f"{__name__}:{name}"})[0]
    assert found.corners.tolist() == [[1, 1, 5, 5], [0, 0, 9, 9]] and found.scores.tolist() == [0.75, 0.5]


def test_suppression_is_that_of_the_classes():
    rng = rng_for("nms")
    rows = raw_rows(rng, 1, 400, 3, 0)
    spec = {**ALL, "head": "yolo", "outputs": {"predictions": "out"}, "nms_threshold": 0.4}
    corners = np.array([xyxy(*row[:4]) for row in rows[0]])
    scores, classes = (np.array(part) for part in zip(*(best(row[4:]) for row in rows[0]), strict=True))
    for agnostic in (False, True):
        kept = by_loop(corners, scores, classes * (not agnostic), 0.4)
        found = decode({"out": rows}, {**spec, "class_agnostic": agnostic, "max_detections": 50})[0]
        np.testing.assert_allclose(found.corners, corners[kept[:50]], rtol=1e-6)
        assert found.classes.tolist() == classes[kept[:50]].tolist()


def test_what_is_no_number_is_no_detection():
    rows = np.array(
        [[[0, 0, 9, 9, 0.9, 1], [0, 0, np.inf, 9, 0.8, 1], [0, 0, 9, 9, np.nan, 1], [0, 0, 9, 9, 0.7, np.nan], [0, 0, 9, 9, 0.6, -1]]]
    )
    found = decode({"out": rows}, {**ALL, "head": "end_to_end", "outputs": {"predictions": "out"}})[0]
    assert found.scores.tolist() == [np.float32(0.9)]
    wild = np.full((1, 126, 7), 1000.0, np.float32)
    assert len(decode({"out": wild}, {**ALL, "head": "yolox", "outputs": {"predictions": "out"}})[0]) == 0


def test_a_class_that_a_quantized_file_rounds():
    rows = np.array([[[0, 0, 9, 9, 0.9, 2.98]]], np.float32)
    assert decode({"out": rows}, {**ALL, "head": "end_to_end", "outputs": {"predictions": "out"}})[0].classes.tolist() == [3]


def test_scores_at_the_threshold_are_not_kept():
    found = decode(
        {"out": raw_rows(rng_for("low"), 1, 60, 2, 0)}, {**ALL, "head": "yolo", "outputs": {"predictions": "out"}, "score_threshold": 1}
    )
    assert len(found[0]) == 0 and found[0].corners.shape == (0, 4)


def test_half_precision_and_integers_are_read_as_float32():
    rows = raw_rows(rng_for("half"), 1, 20, 2, 0).astype(np.float16)
    spec = {**ALL, "head": "yolo", "outputs": {"predictions": "out"}}
    assert np.array_equal(decode({"out": rows}, spec)[0].corners, decode({"out": rows.astype(np.float32)}, spec)[0].corners)


YOLO = {"head": "yolo", "size": SIZE, "outputs": {"predictions": "out"}}
SSD = {"head": "ssd", "size": SIZE, "outputs": {"boxes": "a", "scores": "b"}, "anchors": [[0.5, 0.5, 1, 1]]}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, r"decoding\.head: None; allowed: yolo, yolox"),
        ({**YOLO, "head": "yolov8"}, r"decoding\.head: 'yolov8'; allowed: yolo, yolox, end_to_end"),
        ({"head": "yolo", "outputs": {"predictions": "out"}}, r"decoding\.size: None must be \[height, width\]"),
        ({**YOLO, "size": [0, 5]}, r"decoding\.size: \[0, 5\]"),
        ({**YOLO, "strides": [8]}, r"decoding\.strides: head yolo has no such setting; allowed: .*objectness"),
        ({**YOLO, "outputs": {}}, r"decoding\.outputs: predictions is missing; head yolo reads predictions"),
        ({**YOLO, "outputs": {"predictions": "a", "boxes": "b"}}, r"boxes is not one of its roles; head yolo reads predictions"),
        ({**YOLO, "outputs": ["out"]}, r"decoding\.outputs: \['out'\] must be a mapping"),
        ({**YOLO, "activation": "relu"}, r"decoding\.activation: 'relu'; allowed: none, sigmoid, softmax"),
        ({**YOLO, "objectness": "yes"}, r"decoding\.objectness: 'yes'; allowed: false, true"),
        ({**YOLO, "score_threshold": 25}, r"decoding\.score_threshold: 25 must be a number from 0 to 1"),
        ({**YOLO, "nms_threshold": -0.1}, r"decoding\.nms_threshold: -0\.1 must be a number from 0 to 1 or null"),
        ({**YOLO, "max_detections": 2.5}, r"decoding\.max_detections: 2\.5 must be an integer from 1"),
        ({**YOLO, "head": "yolox", "strides": []}, r"decoding\.strides: \[\] must be a list of pixels"),
        ({**SSD, "box_format": "corners"}, r"decoding\.box_format: 'corners'; allowed: center, center_yx"),
        ({**SSD, "anchors": None}, r"decoding\.anchors: missing; head ssd needs the anchors"),
        ({**SSD, "anchors": [[1, 2, 3]]}, r"decoding\.anchors: .*\[1, 3\] is not a list of rows"),
        ({**SSD, "anchors": {"strides": [8]}}, r"decoding\.anchors: .*max_scale, min_scale must be given"),
        ({**SSD, "anchors": {**FACE, "num_layers": 4}}, r"decoding\.anchors: .*unknown option 'num_layers'; allowed: strides"),
        ({**SSD, "anchors": {**FACE, "strides": [8, 0]}}, r"decoding\.anchors: strides \[8, 0\] must be a list of integers from 1"),
        ({**SSD, "anchors": {**FACE, "strides": 8}}, r"decoding\.anchors: strides 8 must be a list of integers from 1"),
        ({**SSD, "anchors": {**FACE, "aspect_ratios": [0]}}, r"decoding\.anchors: aspect_ratios \[0\] must be a list of numbers above 0"),
        ({**SSD, "variances": [0.1, 0.2]}, r"decoding\.variances: \[0\.1, 0\.2\] must be 4 numbers"),
        ({"head": "callable", "size": SIZE}, r"decoding\.callable: None; write it as package\.module:function"),
        ({"head": "callable", "size": SIZE, "callable": "no.such:thing"}, r"decoding\.callable: 'no\.such:thing': No module named 'no'"),
        ({"head": "callable", "size": SIZE, "callable": f"{__name__}:missing"}, r"has no attribute 'missing'"),
    ],
)  # fmt: skip
def test_specs_that_are_wrong(spec, message):
    with pytest.raises(ValueError, match=message):
        Decoder(spec)


def zeros(**shapes):
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("spec", "outputs", "message"),
    [
        (YOLO, zeros(output0=(1, 84, 8400)), r"decoding\.outputs: the model has no output 'out'; it has output0 float32 \[n, 84, 8400\]"),
        (YOLO, zeros(out=(1, 3, 80, 80, 85)), r"decoding\.head: yolo does not fit: predictions .* must be .* it is \[3, 80, 80, 85"),
        ({**YOLO, "head": "yolox"}, zeros(out=(1, 3549, 85)), r"an input of \[64, 96\] make 126 boxes, predictions has 3549"),
        ({**YOLO, "head": "end_to_end"}, zeros(out=(1, 300, 5)), r"must be \[boxes, 6 or more numbers\], it is \[300, 5\]"),
        (SSD, zeros(a=(1, 3, 4), b=(1, 3, 2)), r"there are 1 anchors, but boxes for 3; the model has a float32 \[n, 3, 4\], b"),
        (SSD, zeros(a=(1, 1, 4), b=(1, 3, 2)), r"there are 1 boxes, but scores for 3"),
        (SSD, zeros(a=(1, 1, 4), b=(1, 1, 1)), r"scores have 1 column, the background"),
        (SSD, zeros(a=(2, 1, 4), b=(1, 1, 2)), r"a, b do not have the same number of samples"),
        ({"head": "postprocessed", "size": SIZE, "outputs": {"boxes": "a", "scores": "b", "classes": "c"}},
         zeros(a=(1, 10, 4), b=(1, 10), c=(1, 9)), r"boxes, scores and classes have 10, 10 and 9 rows"),
        ({"head": "centers", "size": SIZE, "outputs": {"heatmap": "a", "sizes": "b"}}, zeros(a=(1, 3, 16, 24), b=(1, 4, 16, 24)),
         r"heatmap is \[3, 16, 24\], so sizes must be \[2, 16, 24\], it is \[4, 16, 24\]"),
        ({"head": "centers", "size": SIZE, "outputs": {"heatmap": "a", "sizes": "b"}}, zeros(a=(1, 16), b=(1, 2, 16, 24)),
         r"heatmap of a sample must be \[channels, height, width\], it is \[16\]"),
        ({"head": "callable", "size": SIZE, "callable": f"{__name__}:that_returns_too_little"}, zeros(raw=(1, 5, 6)),
         r"it must return corners .* it returned \[5, 3\], \[5\]; the model has raw"),
    ],
)  # fmt: skip
def test_a_head_that_does_not_fit_names_the_outputs_that_there_are(spec, outputs, message):
    with pytest.raises(ValueError, match=message):
        decode(outputs, spec)


@pytest.mark.parametrize("scores", [(1, 0), (1, 0, 3)])
def test_a_model_that_returns_no_box_at_all_found_nothing(scores):
    """As exports with suppression inside do, whose number of boxes is open."""
    spec = {"head": "boxes_scores", "size": SIZE, "outputs": {"boxes": "a", "scores": "b"}}
    assert [len(found) for found in decode(zeros(a=(1, 0, 4), b=scores), spec)] == [0]


def test_of_too_many_boxes_the_highest_are_looked_at(monkeypatch):
    monkeypatch.setattr(decoding, "MOST_CANDIDATES", 10)
    corners = np.tile(np.array([0.0, 0, 1, 1]), (50, 1)) + np.arange(50)[:, None] * 2
    found = decoding.select(Found(corners, np.arange(50)[:, None] / 50), decoding.complete(YOLO))
    assert found.scores.tolist() == [np.float32(i / 50) for i in range(49, 39, -1)]
    alike = decoding.select(Found(corners, np.full((50, 1), 0.5)), decoding.complete(YOLO))
    assert alike.corners[:, 0].tolist() == [2 * i for i in range(10)]


@pytest.mark.parametrize("module", [decoding, detectors, anchors])
def test_python_3_9_can_read_it(module):
    ast.parse(Path(module.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
