"""Average precision and recall of detectors: against pycocotools, and of resampled pictures against pictures that are really repeated."""

import contextlib
import io
import time

import numpy as np
import pytest

from edgewise.stats import average_precision as ap
from edgewise.stats.box_matching import AREAS, RIGHT, Detected, Objects, match, sort_detections
from edgewise.stats.resampling import bootstrap
from tests.support.coco_sets import make_set

coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is the oracle of these tests (pip install edgewise[dev])")
cocoeval = pytest.importorskip("pycocotools.cocoeval")

SETS = {
    "crowds": (60, 3, make_set(60, 3, 1, objects=7, crowd=0.2)),
    "empty pictures and missing classes": (80, 9, make_set(80, 9, 2, objects=1.0, false=2.0, most_labels=5)),
    "ties, and more than a hundred of a class": (12, 2, make_set(12, 2, 3, objects=40, crowd=0.05, false=200, levels=20)),
}


def by_pycocotools(found: Detected, truth: Objects, size: int, labels: int):
    """COCOeval after evaluate, accumulate and summarize."""
    with contextlib.redirect_stdout(io.StringIO()):
        told = coco.COCO()
        told.dataset = {
            "info": {},
            "images": [{"id": i + 1, "width": 640, "height": 480} for i in range(size)],
            "categories": [{"id": i + 1, "name": str(i)} for i in range(labels)],
            "annotations": [
                {"id": i + 1, "image_id": int(p) + 1, "category_id": int(c) + 1, "bbox": box(b), "area": float(a), "iscrowd": int(crowd)}
                for i, (p, c, b, a, crowd) in enumerate(
                    zip(truth.pictures, truth.classes, truth.corners, truth.areas, truth.crowd, strict=True)
                )
            ],
        }
        told.createIndex()
        rows = zip(found.pictures, found.classes, found.corners, found.scores, strict=True)
        said = [{"image_id": int(p) + 1, "category_id": int(c) + 1, "bbox": box(b), "score": float(s)} for p, c, b, s in rows]
        judged = cocoeval.COCOeval(told, told.loadRes(said), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged


def box(corners: np.ndarray) -> list[float]:
    x0, y0, x1, y1 = corners.astype(np.float64).tolist()
    return [x0, y0, x1 - x0, y1 - y0]


@pytest.mark.parametrize("name", SETS)
def test_all_figures_are_those_of_pycocotools(name):
    size, labels, (found, truth) = SETS[name]
    judged, matches = by_pycocotools(found, truth, size, labels), match(found, truth, size, labels)
    expected = dict(zip(ap.SCORE_NAMES, judged.stats, strict=True))
    given = ap.summarize(matches)
    assert all(value is not None and 0.01 < value < 0.99 for value in given.values())
    assert given == pytest.approx(expected, abs=1e-6)
    for number in range(len(AREAS)):
        precision = judged.eval["precision"][:, :, :, number, -1]  # thresholds, levels, classes
        per_class = np.where(precision[0, 0] > -1, precision.mean(axis=1), np.nan).T
        np.testing.assert_allclose(ap.precision_by_class(matches, area=number)[0], per_class, atol=1e-6)
        recall = judged.eval["recall"][:, :, number, -1].T
        np.testing.assert_allclose(ap.recall_by_class(matches, area=number), np.where(recall > -1, recall, np.nan), atol=1e-6)


def test_the_sets_have_what_they_are_named_after():
    (_, _, (_, crowds)), (size, labels, (found, sparse)), (_, _, (many, _)) = SETS.values()
    assert crowds.crowd.sum() > 20
    assert len(np.unique(sparse.pictures)) < size and len(np.unique(found.pictures)) < size
    assert set(sparse.classes) < set(range(labels)) and set(found.classes) - set(sparse.classes)
    assert len(sort_detections(many)[0].scores) < len(many.scores) and len(np.unique(many.scores)) < 25


def repeat(found: Detected, truth: Objects, counts: np.ndarray) -> tuple[Detected, Objects]:
    """The pictures as often as counts says, as pictures of their own."""
    sources = np.repeat(np.arange(len(counts)), counts)
    rows = [np.flatnonzero(found.pictures == picture) for picture in sources]
    objects = [np.flatnonzero(truth.pictures == picture) for picture in sources]
    again, there = np.concatenate(rows), np.concatenate(objects)
    numbers, places = (np.repeat(np.arange(len(sources)), [len(part) for part in parts]) for parts in (rows, objects))
    return (
        Detected(numbers, found.corners[again], found.scores[again], found.classes[again]),
        Objects(places, truth.corners[there], truth.classes[there], truth.areas[there], truth.crowd[there]),
    )


@pytest.mark.parametrize("name", list(SETS)[:2])
def test_counts_of_pictures_are_pictures_that_are_repeated(name):
    size, labels, (found, truth) = SETS[name]
    matches = match(found, truth, size, labels)
    counts = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), 5)
    given = ap.mean_precision(matches, counts.astype(np.float32))
    for drawn, row in zip(counts, given, strict=True):
        again = match(*repeat(found, truth, drawn), int(drawn.sum()), labels)
        np.testing.assert_allclose(row, ap.mean_precision(again)[0], atol=1e-9)


def test_a_class_that_no_drawn_picture_has_is_left_out():
    found, truth = make_set(10, 2, 5)
    first = truth.pictures < 5
    truth = Objects(truth.pictures, truth.corners, np.where(first, 0, 1), truth.areas, truth.crowd)
    matches = match(found, truth, 10, 2)
    counts = np.array([[2.0] * 5 + [0.0] * 5])
    given = ap.precision_by_class(matches, counts)[0]
    assert np.isnan(given[1]).all() and not np.isnan(given[0]).any()
    assert ap.mean_precision(matches, counts)[0] == pytest.approx(given[0])


def test_nothing_found_scores_zero_and_nothing_there_scores_none():
    found, truth = make_set(10, 2, 5)
    nothing, empty = found.select(np.zeros(0, int)), Objects(*(part[:0] for part in vars(truth).values()))
    assert ap.summarize(match(nothing, truth, 10, 2))["map_50_95"] == 0
    assert set(ap.summarize(match(found, empty, 10, 2)).values()) == {None}


def test_the_curve_of_a_class_is_that_of_pycocotools():
    size, labels, (found, truth) = SETS["empty pictures and missing classes"]
    matches, judged = match(found, truth, size, labels), by_pycocotools(found, truth, size, labels)
    for label in range(labels):
        expected = judged.eval["precision"][ap.AP75, :, label, 0, -1]
        np.testing.assert_allclose(ap.precision_at_levels(matches, label, ap.AP75), np.where(expected > -1, expected, np.nan), atol=1e-6)


def test_order_of_detections_and_of_objects_does_not_matter():
    size, labels, (found, truth) = SETS["crowds"]
    rng = np.random.default_rng(0)
    order, other = rng.permutation(len(found.scores)), rng.permutation(len(truth.pictures))
    shuffled = Objects(*(part[other] for part in vars(truth).values()))
    again = match(found.select(order), shuffled, size, labels)
    assert ap.summarize(again) == ap.summarize(match(found, truth, size, labels))


def test_an_object_is_found_once_and_a_crowd_many_times():
    box = np.array([[0, 0, 100, 100]], np.float32)
    twice = Detected(np.zeros(2, int), box.repeat(2, axis=0), np.array([0.9, 0.8], np.float32), np.zeros(2, int))
    for crowd, right, wrong in ((False, 1, 1), (True, 0, 0)):
        truth = Objects(np.zeros(1, int), box, np.zeros(1, int), np.array([1e4]), np.array([crowd]))
        states = match(twice, truth, 1, 1).states[:, ap.ALL, ap.AP50]
        assert (np.sum(states == RIGHT), np.sum(states == 0)) == (right, wrong)


def test_a_thousand_draws_of_many_pictures_are_fast():
    """A tenth of what COCO has in val2017: 500 pictures, 80 classes. The whole of it is timed in benchmarks/box_intervals.py."""
    found, truth = make_set(500, 80, 6, objects=7, false=30)
    started = time.process_time()
    matches = match(found, truth, 500, 80)
    draws = bootstrap(lambda counts: ap.mean_precision(matches, counts)[:, ap.AP50], np.zeros(500, int), draws=1000)
    assert time.process_time() - started < 10 and np.std(draws) > 0
