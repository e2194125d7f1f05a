"""Intersection over union of maps of classes: against scikit-learn, of all pixels, and of pictures that are really repeated."""

import numpy as np
import pytest
from sklearn import metrics

from edgewise.stats import mean_iou as iou
from edgewise.stats.mean_iou import IGNORE, PixelCounts

LABELS = 5


def maps(pictures: int = 12, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Maps and truths of pictures of several sizes; the last class is never true, some pixels have none."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(pictures):
        shape = tuple(rng.integers(5, 20, 2))
        truth = rng.choice(LABELS - 1, shape, p=(0.6, 0.3, 0.08, 0.02)).astype(np.uint8)
        said = np.where(rng.random(shape) < 0.7, truth, rng.integers(0, LABELS, shape)).astype(np.uint8)
        made.append((said, np.where(rng.random(shape) < 0.1, IGNORE, truth).astype(np.uint8)))
    return made


def confusions(made) -> np.ndarray:
    return np.stack([iou.pixel_confusion(said, truth, LABELS) for said, truth in made])


def pixels_of(made) -> tuple[np.ndarray, np.ndarray]:
    said, truth = (np.concatenate([pair[i].ravel() for pair in made]) for i in (0, 1))
    return said[truth != IGNORE], truth[truth != IGNORE]


def test_all_figures_are_those_of_scikit_learn():
    made = maps()
    said, truth = pixels_of(made)
    counts = PixelCounts.of(confusions(made))
    np.testing.assert_array_equal(confusions(made).sum(axis=0)[:, :-1], metrics.confusion_matrix(truth, said, labels=range(LABELS)))
    expected = metrics.jaccard_score(truth, said, labels=range(LABELS - 1), average=None)
    np.testing.assert_allclose(iou.class_iou(counts)[0, :-1], expected)
    assert np.isnan(iou.class_iou(counts)[0, -1])
    assert iou.mean_iou(counts)[0] == pytest.approx(expected.mean())
    assert iou.pixel_accuracy(counts) == pytest.approx(metrics.accuracy_score(truth, said))


def test_counts_of_pictures_are_pictures_that_are_repeated():
    made = maps()
    drawn = np.random.default_rng(1).multinomial(len(made), np.full(len(made), 1 / len(made)), 4)
    given = iou.mean_iou(PixelCounts.of(confusions(made)), drawn.astype(np.float32))
    for counts, value in zip(drawn, given, strict=True):
        again = [made[i] for i in np.repeat(np.arange(len(made)), counts)]
        assert value == pytest.approx(iou.mean_iou(PixelCounts.of(confusions(again)))[0])


def test_a_draw_without_a_class_leaves_it_out():
    first, second = np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)
    counts = PixelCounts.of(confusions([(first, first), (np.zeros((4, 4), np.uint8), second)]))
    assert iou.mean_iou(counts, np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])) == pytest.approx([1.0, 0.0, 0.25])


def test_truth_without_any_class_gives_nothing():
    nothing = np.full((4, 4), IGNORE, np.uint8)
    counts = PixelCounts.of(confusions([(np.zeros((4, 4), np.uint8), nothing)]))
    assert np.isnan(iou.mean_iou(counts)[0]) and np.isnan(iou.pixel_accuracy(counts))


def test_a_pixel_of_the_map_without_a_class_is_wrong():
    truth, said = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    said[0] = IGNORE
    counts = PixelCounts.of(confusions([(said, truth)]))
    assert iou.mean_iou(counts)[0] == pytest.approx(0.75) and iou.pixel_accuracy(counts) == 0.75


def test_the_mean_of_each_picture_is_that_of_the_picture_alone():
    made = maps()
    given = iou.picture_iou(PixelCounts.of(confusions(made)))
    assert given == pytest.approx([iou.mean_iou(PixelCounts.of(confusions([pair])))[0] for pair in made])
