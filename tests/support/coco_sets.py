"""Made-up detections and objects for tests of detection: crowds, empty pictures, classes that are missing, ties, boxes of no area."""

import numpy as np

from edgewise.stats.box_matching import Detected, Objects


def make_set(
    size: int,
    labels: int,
    seed: int = 0,
    *,
    objects: float = 5.0,
    crowd: float = 0.0,
    false: float = 4.0,
    levels: int = 0,
    most_labels: int | None = None,
) -> tuple[Detected, Objects]:
    """Detections and objects of `size` pictures. objects, false: mean number in a picture; levels: number of different scores (0: any);
    most_labels: classes that have objects."""
    rng = np.random.default_rng(seed)
    pictures = np.repeat(np.arange(size), rng.poisson(objects, size))
    count = len(pictures)
    classes = rng.integers(0, most_labels or labels, count)
    corners = make_boxes(rng, count)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]) * rng.uniform(0.5, 1.0, count)
    truth = Objects(pictures, corners, classes, areas, rng.random(count) < crowd)
    found = detect(truth, size, labels, rng, false)
    scores = np.round(found.scores * levels) / levels if levels else found.scores
    return Detected(found.pictures, found.corners, scores.astype(np.float32), found.classes), truth


def detect(
    truth: Objects, size: int, labels: int, rng: np.random.Generator, false: float, miss: float = 0.2, jitter: float = 0.12
) -> Detected:
    """What a detector of middling quality finds: most objects, some of them twice, moved a little, and others that are not there."""
    again = rng.poisson(1.2, len(truth.pictures)) * (rng.random(len(truth.pictures)) > miss)
    sources = np.repeat(np.arange(len(truth.pictures)), again)
    sides = np.tile(truth.corners[sources, 2:] - truth.corners[sources, :2], 2)
    moved = truth.corners[sources] + sides * rng.normal(0, jitter, sides.shape)
    wrong = np.repeat(np.arange(size), rng.poisson(false, size))
    corners = np.concatenate(
        [np.hstack([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])]), make_boxes(rng, len(wrong))]
    )
    confused = np.where(rng.random(len(sources)) < 0.1, rng.integers(0, labels, len(sources)), truth.classes[sources])
    classes = np.concatenate([confused, rng.integers(0, labels, len(wrong))])
    scores = np.concatenate([rng.beta(4, 2, len(sources)), rng.beta(2, 4, len(wrong))])
    pictures = np.concatenate([truth.pictures[sources], wrong])
    order = rng.permutation(len(pictures))
    return Detected(pictures[order], corners[order].astype(np.float32), scores[order].astype(np.float32), classes[order])


def make_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes of all sizes in a picture of 640 x 480, float32."""
    sides = np.exp(rng.uniform(np.log(8), np.log(320), (count, 2)))
    starts = rng.uniform(0, 1, (count, 2)) * (np.array([640, 480]) - np.minimum(sides, 470))
    return np.hstack([starts, starts + sides]).astype(np.float32)
