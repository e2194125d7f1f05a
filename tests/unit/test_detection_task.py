"""The task detection: from outputs to scores, what a variant loses at the threshold, and what users can do wrong."""

import dataclasses

import numpy as np
import pytest

from edgewise.artifacts import artifact, targets
from edgewise.artifacts.records import Quality, Summary, VariantSummary
from edgewise.config.schema import Budget
from edgewise.errors import ConfigError, DataError, ModelError
from edgewise.plugins import Boxes, Predictions
from edgewise.report import page, table
from edgewise.stats import average_precision
from edgewise.stats.box_matching import Detected, Objects, match
from edgewise.tasks import detection
from edgewise.tasks.predictions import OUTPUTS, read_predictions
from tests.support.coco_sets import make_set

LABELS = ("car", "cat", "dog")
DECODING = {"head": "end_to_end", "outputs": {"predictions": "out"}}
SIZE = 60


def kept(found: Detected, size: int = SIZE) -> dict[str, np.ndarray]:
    """As condense has it."""
    order = np.argsort(found.pictures, kind="stable")
    counts = np.bincount(found.pictures, minlength=size)
    return {"counts": counts, "corners": found.corners[order], "scores": found.scores[order], "classes": found.classes[order]}


def boxes(truth: Objects, size: int = SIZE) -> list[Boxes]:
    every = Boxes.of(truth.corners, truth.classes, truth.areas, truth.crowd)
    return [every.take(truth.pictures == picture) for picture in range(size)]


def predictions(seed: int = 1, change=lambda found: found, **more) -> Predictions:
    found, truth = make_set(SIZE, len(LABELS), seed, crowd=0.05, **more)
    return Predictions(kept(change(found)), boxes(truth), LABELS, {"decoding": DECODING})


def judged(answers: Predictions, validation: Predictions | None = None, **settings):
    """(Scores, the predictions as they are compared)."""
    found = detection.judge(detection.Settings(**settings), {"validation": validation or predictions(2), "test": answers})
    return found, dataclasses.replace(answers, spec={**answers.spec, **found.decision})


def compared(change, **settings):
    """A variant that `change` makes of the reference's detections, against the reference."""
    (_, before), (_, after) = judged(predictions(), **settings), judged(predictions(change=change), **settings)
    return detection.compare(detection.Settings(**settings), before, after)


def noisy(found: Detected) -> Detected:
    rng = np.random.default_rng(5)
    scores = np.clip(found.scores + rng.normal(0, 0.05, len(found.scores)), 0.01, 0.99).astype(np.float32)
    return Detected(found.pictures, found.corners, scores, found.classes)


def test_all_scores_that_are_declared_are_given():
    found, _ = judged(predictions())
    given = {*found.scores, *compared(noisy).scores}
    assert given == {*detection.SCORES, detection.PRIMARY_METRIC.name}
    assert 0.05 < found.scores["map_50_95"] < found.scores["ap50"] < 1
    low, high = found.scores["map_50_95_ci95"]
    assert 0 < low < found.scores["map_50_95"] < high < 1


def test_the_threshold_is_chosen_on_validation_and_kept_for_the_device():
    found, _ = judged(predictions())
    threshold = found.scores["threshold"]
    assert found.decision == {"answer": "boxes", "threshold": threshold, "decoding": DECODING}
    assert judged(predictions(3))[0].scores["threshold"] == threshold
    assert judged(predictions(), validation=predictions(4))[0].scores["threshold"] != threshold
    assert judged(predictions(), threshold=0.42)[0].decision["threshold"] == 0.42


def test_details_tell_of_each_class():
    answers = predictions()
    details = judged(answers)[0].details
    matches = detection.match_answers(answers)
    assert set(details["objects_per_class"]) == set(LABELS)
    for place, label in enumerate(LABELS):
        assert details["ap50_per_class"][label] == pytest.approx(np.mean(details["precision_at_recall"][label]), abs=1e-4)
        assert details["map_50_95_per_class"][label] == pytest.approx(average_precision.precision_by_class(matches)[0, place].mean())


def test_the_same_detections_differ_by_exactly_nothing():
    found = compared(lambda found: found)
    assert (found.delta, found.delta_ci95, found.needed) == (0.0, (0.0, 0.0), None)
    assert (found.scores["ap50_delta"], found.scores["ap50_delta_ci95"]) == (0.0, [0.0, 0.0])
    assert (found.scores["lost_detections_share"], found.scores["lost_detections_share_ci95"]) == (0.0, [0.0, 0.0])
    assert found.resolvable > 0


def lowered(found: Detected) -> Detected:
    return Detected(found.pictures, found.corners, found.scores * np.float32(0.75), found.classes)


def test_lowered_scores_keep_the_precision_and_lose_detections():
    found = compared(lowered)
    assert found.delta == 0 and found.delta_ci95[0] < 0 < found.delta_ci95[1]
    low, high = found.scores["lost_detections_share_ci95"]
    assert 0.3 < low < found.scores["lost_detections_share"] < high < 1
    assert found.scores["lost_at_own_threshold_share"] > 0.3  # those of validation are not lowered here
    assert found.scores["score_shift_p5"] < found.scores["score_shift_median"] < found.scores["score_shift_p95"] < -0.1


def test_the_own_threshold_finds_lowered_scores_again():
    (_, before), (_, after) = judged(predictions()), judged(predictions(change=lowered), predictions(2, change=lowered))
    found = detection.compare(detection.Settings(), before, after)
    assert after.spec["threshold"] == pytest.approx(0.75 * before.spec["threshold"])
    assert found.scores["lost_at_own_threshold_share"] == 0 and found.scores["lost_detections_share"] > 0.3


def test_a_worse_variant_is_worse_and_the_interval_says_so():
    def worse(found):
        return noisy(found.select(np.random.default_rng(0).random(len(found.scores)) > 0.3))

    found = compared(worse)
    assert found.resolved and found.delta_ci95[0] < found.delta < found.delta_ci95[1] < 0
    low, high = found.scores["ap50_delta_ci95"]
    assert low < found.scores["ap50_delta"] < high < 0


def test_few_losses_have_an_exact_bound():
    found = compared(noisy, threshold=0.001)
    assert found.scores["lost_detections_share"] == 0 and found.scores["lost_detections_share_ci95"][0] == 0
    pictures = len(np.unique(make_set(SIZE, 3, 1, crowd=0.05)[0].pictures))
    assert found.scores["lost_detections_share_ci95"][1] == pytest.approx(1 - 0.025 ** (1 / pictures))


def test_a_reference_that_detects_nothing_loses_nothing():
    found = compared(noisy, threshold=1.0)
    assert found.scores["detections"] == 0
    assert {found.scores[name] for name in (*detection.LOST, *detection.SHIFTS)} == {None}


def outputs() -> dict[str, np.ndarray]:
    """Two pictures: one detection, and none."""
    rows = np.zeros((2, 3, 6), np.float32)
    rows[0, 0] = [10, 20, 50, 60, 0.9, 2]
    return {"out": rows}


SPEC = {
    "preprocessing": {"size": [100, 100], "resize": "letterbox", "anchor": "corner", "stride": None},
    "sizes": np.array([[200, 100], [100, 100]]),
    "labels": LABELS,
}


def test_detections_are_kept_in_pixels_of_the_picture():
    made = detection.condense(detection.Settings(decoding=DECODING), SPEC, outputs())
    assert made["counts"].tolist() == [1, 0] and made["classes"].tolist() == [2]
    np.testing.assert_allclose(made["corners"], [[20, 40, 100, 120]])
    same = detection.condense(detection.Settings(), {**SPEC, "decoding": DECODING}, outputs())
    np.testing.assert_array_equal(made["corners"], same["corners"])


def test_grids_are_those_of_the_input_that_was_made():
    """Padded to a multiple only, pictures of 100 x 200 pixels come to 32 x 64 of 64 x 64: 8 * 4 + 4 * 2 + 2 * 1 cells."""
    letterbox = {"resize": "letterbox", "size": [64, 64], "anchor": "corner", "stride": 32}
    spec = {"labels": LABELS, "preprocessing": letterbox, "sizes": np.array([[100, 200]])}
    decoding = {"head": "yolox", "outputs": {"predictions": "out"}}
    rows = np.zeros((1, 8 * 4 + 4 * 2 + 2, 5 + len(LABELS)), np.float32)
    rows[0, -1, 4:6] = 1.0  # the last cell, of 32 pixels, at 32, 0
    made = detection.condense(detection.Settings(decoding=decoding), spec, {"out": rows})
    np.testing.assert_allclose(made["corners"], [[50, 0, 150, 50]])


def test_what_was_kept_is_matched_as_it_was_made():
    found, truth = make_set(SIZE, 3, 7)
    answers = Predictions(kept(found), boxes(truth), LABELS)
    expected = average_precision.summarize(match(found, truth, SIZE, 3))
    assert average_precision.summarize(detection.match_answers(answers)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "spec", "error"),
    [
        ({}, {}, ConfigError),
        ({"decoding": {**DECODING, "head": "yolov99"}}, {}, ConfigError),
        ({"decoding": {**DECODING, "outputs": {"predictions": "elsewhere"}}}, {}, ConfigError),
        ({"decoding": DECODING}, {"labels": LABELS[:2]}, ModelError),
    ],
    ids=["no decoding", "unknown head", "no such output", "a class too many"],
)
def test_what_cannot_be_decoded_is_named(settings, spec, error):
    with pytest.raises(error, match=r"task\.decoding"):
        detection.condense(detection.Settings(**settings), {**SPEC, **spec}, outputs())


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_objects_is_named(split):
    empty = dataclasses.replace(predictions(), targets=[Boxes.of([], [])] * SIZE)
    with pytest.raises(DataError, match=rf"data\.splits\.{split}: none of its {SIZE} pictures"):
        judged(*((predictions(), empty) if split == "validation" else (empty,)))


def test_a_threshold_that_is_given_needs_no_objects_in_validation():
    empty = dataclasses.replace(predictions(), targets=[Boxes.of([], [])] * SIZE)
    assert judged(predictions(), empty, threshold=0.3)[0].scores["threshold"] == 0.3


def test_predictions_are_read_as_they_were_written(tmp_path):
    answers = judged(predictions())[1]
    np.savez(tmp_path / OUTPUTS, **answers.ports)
    targets.store(tmp_path, targets.pack(answers.targets))
    details = {"targets": targets.BOXES, **answers.spec}
    artifact.write(tmp_path, artifact.Manifest(kind="evaluation", labels=LABELS, details=details))
    again = read_predictions(tmp_path)
    assert targets.are_same(again.targets, answers.targets)
    assert detection.compare(detection.Settings(), answers, again).delta_ci95 == (0.0, 0.0)


def test_the_table_writes_map_as_everybody_does():
    quality = Quality(samples=8, delta=-0.01, verdict="not resolved", resolvable=0.1, samples_needed=900)
    rows = {
        name: VariantSummary("onnx", scheme, "ok", quality=q)
        for name, scheme, q in (("onnx-fp32", "fp32", Quality(score=0.5)), ("onnx-int8-static", "int8-static", quality))
    }
    summary = Summary("onnx-fp32", {}, rows, (), None, "", Budget("none"), detection.PRIMARY_METRIC)
    assert table.describe_unresolved(summary) == [
        "mAP shown neither better nor worse than onnx-fp32's: onnx-int8-static (needs 900 samples)"
    ]


def test_the_table_says_what_is_lost_and_how_scores_moved():
    lost = {
        **{"detections": 1615, "lost_detections_share": 0.067, "lost_detections_share_ci95": [0.048, 0.0881]},
        **{"score_shift_p5": -0.09, "score_shift_median": 0.0002, "score_shift_p95": 0.08, "lost_at_own_threshold_share": 0.029},
    }
    rows = {
        "onnx-fp32": VariantSummary("onnx", "fp32", "ok", quality=Quality(scores={**lost, "threshold": 0.2854})),
        "onnx-int8-static": VariantSummary("onnx", "int8-static", "ok", quality=Quality(scores={**lost, "threshold": 0.2})),
        "failed": VariantSummary("onnx", "int8-qat", "failed", quality=Quality(scores=dict.fromkeys(lost))),
    }
    said = table.describe_lost(Summary("onnx-fp32", {}, rows, (), None, "", Budget("none"), detection.PRIMARY_METRIC))
    assert said == [
        "Of the 1,615 detections of onnx-fp32 above its threshold of 0.29 are lost: onnx-int8-static 6.7 % [4.8, 8.8] (2.9 % at its own of"
        " 0.20), scores moved by 0.00 (−0.09 to +0.08)"
    ]
    assert not table.describe_lost(Summary("a", {}, {"a": rows["failed"]}, (), None, "", Budget("none"), None))


def test_the_variant_that_loses_most_comes_first_and_those_that_lose_nothing_last():
    """A reader of a line that is cut wants to know what 8 bits lose, and not that a float file loses nothing."""
    blank = {"detections": 645, "lost_detections_share_ci95": None, "lost_at_own_threshold_share": 0.0, "score_shift_median": None}
    shares = {"onnx-fp32": 0.0, "openvino-fp32": 0.0, "onnx-int8": 0.07, "openvino-int8": 0.096, "onnx-fp16": 0.0}
    rows = {
        name: VariantSummary("onnx", "fp32", "ok", quality=Quality(scores={**blank, "lost_detections_share": share}))
        for name, share in shares.items()
    }
    (said,) = table.describe_lost(Summary("onnx-fp32", {}, rows, (), None, "", Budget("none"), detection.PRIMARY_METRIC))
    assert said.endswith("are lost: openvino-int8 9.6 %; onnx-int8 7.0 %; none by onnx-fp16, openvino-fp32")


def test_the_page_says_above_which_scores_boxes_are_drawn():
    def summary(*thresholds):
        scores = [{} if threshold is None else {"threshold": threshold} for threshold in thresholds]
        rows = {
            name: VariantSummary("onnx", name, "ok", quality=Quality(scores=each))
            for name, each in zip(("fp32", "int8"), scores, strict=True)
        }
        return Summary("fp32", {}, rows, (), "int8", "", Budget("none"), detection.PRIMARY_METRIC)

    said = page.describe_views(summary(0.2854, 0.2018), "int8")
    assert said.startswith("The truth, fp32 with its boxes above 0.29, and int8 with its boxes above 0.20: each has its own threshold")
    assert page.describe_views(summary(None, None), "int8") == "The truth, fp32 and int8, with the class of each pixel."
    assert page.describe_views(summary(None, None), None) == ""
