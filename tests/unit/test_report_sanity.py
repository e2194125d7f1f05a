"""Answers that a score does not make suspicious, in decisions made by hand and in a report."""

from dataclasses import replace

import numpy as np
import pytest

from edgewise.plugins import Decisions
from edgewise.report import overview, sanity
from edgewise.tasks import detection, regression
from tests.support.fabricate import FIVE, fabricate


def decide(*answers: tuple[str, str, int]) -> Decisions:
    """From (truth, answer, how many)."""
    truth, said = (tuple(row[place] for row in answers for _ in range(row[2])) for place in (0, 1))
    return Decisions(said, truth, np.array([a == b for a, b in zip(truth, said, strict=True)]))


def test_a_source_that_is_no_better_than_the_commonest_class():
    """71.0 % of the places are free, and 71.5 % of the answers are right."""
    (said,) = sanity.warn_of_source(
        "onnx-fp32", decide(("free", "free", 139), ("free", "taken", 3), ("taken", "taken", 4), ("taken", "free", 54))
    )
    assert "right for 71.5% of the test samples" in said and "always answering 'free' (71.0%)" in said


@pytest.mark.parametrize(
    "answers", [[("free", "free", 139), ("free", "taken", 3), ("taken", "taken", 30), ("taken", "free", 28)], [("a", "a", 9)]]
)
def test_a_source_that_has_learned_something_is_left_alone(answers):
    assert list(sanity.warn_of_source("onnx-fp32", decide(*answers))) == []


def test_a_source_that_always_answers_the_same():
    (said,) = sanity.warn_of_source("onnx-fp32", decide(("free", "taken", 71), ("taken", "taken", 29)))
    assert "answers 'taken' for every test sample (29.0% are)" in said


def test_classes_that_are_never_recognized_are_named_with_their_samples():
    rare = [("dent", "good", 6), ("hole", "good", 4)]  # four samples are too few to say so
    (said,) = sanity.warn_of_source("onnx-fp32", decide(("good", "good", 200), ("crack", "crack", 90), *rare))
    assert "never recognizes 'dent' (6 samples):" in said


def test_a_class_that_only_the_variant_loses():
    reference = decide(("good", "good", 90), ("dent", "dent", 6), ("crack", "good", 7))
    variant = decide(("good", "good", 90), ("dent", "good", 6), ("crack", "good", 7))
    assert list(sanity.warn_of_variant(variant, reference)) == ["never recognizes 'dent' (6 samples), which the reference does"]
    assert list(sanity.warn_of_variant(reference, reference)) == [] and list(sanity.warn_of_variant(variant, None)) == []


@pytest.mark.parametrize(
    ("score", "metric", "warned"),
    [
        (0.0004, detection.PRIMARY_METRIC, 1),
        (0.2, detection.PRIMARY_METRIC, 0),
        (None, detection.PRIMARY_METRIC, 0),
        (0.001, regression.PRIMARY_METRIC, 0),
        (0.0, None, 0),
    ],
)
def test_a_detector_that_finds_next_to_nothing_is_warned_of(score, metric, warned):
    found = list(sanity.warn_of_low_score("onnx-fp32", score, metric))
    assert len(found) == warned and all("the mAP of onnx-fp32 is 0.04%: the source finds next to nothing" in text for text in found)


def test_answers_that_are_no_classes_are_left_alone():
    """As those of defect detection: 'defect' is right for any class but the normal one."""
    found = replace(decide(("good", "defect", 50), ("crack", "defect", 50)), correct=np.arange(100) >= 50)
    assert list(sanity.warn_of_source("onnx-fp32", found)) == [] == list(sanity.warn_of_variant(found, found))


def test_the_report_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = fabricate(tmp_path, [replace(FIVE[0], lost=530), FIVE[1]])
    summary = overview.summarize(settings)
    assert any("not shown to be better than always answering" in text for text in summary.warnings), summary.warnings


def test_the_report_has_those_of_variants(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = overview.summarize(fabricate(tmp_path, [FIVE[0], replace(FIVE[1], lost=530)]))
    (said,) = [text for text in summary.variants[FIVE[1].name].warnings if "never recognizes" in text]
    assert "more classes, which the reference does" in said
