"""The detector at its threshold: the best one by trying all, its precision and recall, and what another model finds again."""

import numpy as np
import pytest

from edgewise.stats import working_point
from edgewise.stats.box_matching import AREAS, IGNORED, RIGHT, Detected, Objects, match
from tests.support.coco_sets import make_set

SETS = [(50, 3, make_set(50, 3, 1)), (50, 3, make_set(50, 3, 2, crowd=0.2, levels=10)), (8, 1, make_set(8, 1, 3, false=0.0))]


@pytest.mark.parametrize(("size", "labels", "made"), SETS, ids=("plain", "crowds and ties", "few"))
def test_no_threshold_has_a_higher_f1(size, labels, made):
    matches = match(*made, size, labels)
    best = working_point.best_threshold(matches)
    tried = [working_point.judge_threshold(matches, float(t)).f1 for t in np.linspace(0, 1, 501)]
    assert working_point.judge_threshold(matches, best).f1 >= max(tried) > 0.3


def test_figures_at_a_threshold_are_those_of_counting():
    size, labels, (found, truth) = SETS[1]
    matches = match(found, truth, size, labels)
    states = matches.states[:, list(AREAS).index("all"), 0]
    said = (matches.scores > 0.4) & (states != IGNORED)
    right = int((said & (states == RIGHT)).sum())
    point = working_point.judge_threshold(matches, 0.4)
    assert point.precision == pytest.approx(right / said.sum()) and point.recall == pytest.approx(right / (~truth.crowd).sum())
    assert point.f1 == pytest.approx(2 / (1 / point.precision + 1 / point.recall))


def test_where_nothing_is_right_nothing_is_above_the_best_threshold():
    size, labels, (found, truth) = SETS[0]
    elsewhere = match(Detected(found.pictures, found.corners + 5000, found.scores, found.classes), truth, size, labels)
    point = working_point.judge_threshold(elsewhere, working_point.best_threshold(elsewhere))
    assert (point.precision, point.recall, point.f1) == (None, 0.0, 0.0)
    assert working_point.best_threshold(match(found.select(np.zeros(0, int)), truth, size, labels)) == 1.0


def test_matched_shares_are_counted_picture_by_picture():
    size, labels, (found, truth) = SETS[1]
    shares = working_point.matched_shares(match(found, truth, size, labels))
    for picture in range(size):
        mine = Objects(*(part[truth.pictures == picture] for part in vars(truth).values()))
        own = match(found.select(found.pictures == picture), mine, size, labels)
        states = own.states[:, 0, 0][np.argsort(-own.scores, kind="stable")]
        wanted = int((~mine.crowd).sum())
        expected = np.sum(states[states != IGNORED][:wanted] == RIGHT) / wanted if wanted else np.nan
        assert shares[picture] == pytest.approx(expected, nan_ok=True)
    assert 0.2 < np.nanmean(shares) < 0.9


def apart(count: int = 40, seed: int = 0) -> Detected:
    """Detections that do not overlap, each with its own place."""
    rng = np.random.default_rng(seed)
    corners = np.array([[100 * i, 0, 100 * i + 50, 50] for i in range(10)] * (count // 10), np.float32)
    return Detected(
        np.repeat(np.arange(count // 10), 10), corners, rng.uniform(0.1, 0.9, count).astype(np.float32), rng.integers(0, 3, count)
    )


def test_halved_scores_are_found_again_and_lost_above_the_threshold():
    reference = apart()
    halved = Detected(reference.pictures, reference.corners, reference.scores / 2, reference.classes)
    again = working_point.find_again(reference, halved, 0.3)
    assert len(again.scores) == np.sum(reference.scores > 0.3)
    assert not np.isnan(again.again).any()
    np.testing.assert_array_equal(again.lost(0.3), again.scores <= 0.6)
    low, middle, high = again.shifts()
    assert middle == pytest.approx(np.median(-again.scores / 2)) and low < middle < high < 0


@pytest.mark.parametrize(("moved_px", "other_class", "other_picture", "found"), [(10, 0, 0, 40), (30, 0, 0, 0), (0, 1, 0, 0), (0, 0, 9, 0)])
def test_a_detection_is_found_again_in_its_place_picture_and_class(moved_px, other_class, other_picture, found):
    reference = apart()
    corners = reference.corners + np.array([moved_px, 0, moved_px, 0], np.float32)
    variant = Detected(reference.pictures + other_picture, corners, reference.scores, (reference.classes + other_class) % 3)
    again = working_point.find_again(reference, variant, 0.0)
    assert np.sum(~np.isnan(again.again)) == found
    assert (again.shifts() is None) == (found == 0) and again.lost(0.0).sum() == 40 - found


def test_one_detection_of_the_variant_stands_for_one_of_the_reference():
    box = np.array([[0, 0, 100, 100], [0, 0, 100, 90]], np.float32)
    two = Detected(np.zeros(2, int), box, np.array([0.9, 0.8], np.float32), np.zeros(2, int))
    again = working_point.find_again(two, two.select(np.array([1])), 0.5)
    assert np.isnan(again.again).tolist() == [True, False]


def test_what_is_above_the_threshold_is_found_before_what_overlaps_more():
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 99], [0, 0, 100, 80]], np.float32)
    every = Detected(np.zeros(3, int), boxes, np.array([0.9, 0.1, 0.8], np.float32), np.zeros(3, int))
    again = working_point.find_again(every.select(np.array([0])), every.select(np.array([1, 2])), 0.5)
    assert again.again == pytest.approx([0.8])


def test_a_model_finds_all_of_its_own():
    _, _, (found, _) = SETS[0]
    again = working_point.find_again(found, found, 0.5)
    assert not again.lost(0.5).any() and set(again.shifts()) == {0.0}
