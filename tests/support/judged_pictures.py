"""Made-up pictures in which two models make similar errors, for simulations of intervals: draws of a test set from a population."""

import numpy as np

from edgewise.stats.box_matching import Detected, Matches, Objects, match
from edgewise.stats.mean_iou import PixelCounts
from tests.support.coco_sets import detect, make_boxes

PIXELS = 2000


def draw_matches(rng: np.random.Generator, size: int, labels: int, objects: float, noise: float, drop: float) -> tuple[Matches, Matches]:
    """A detector and a variant of it on `size` pictures: some crowded and some empty, mostly of one class, some classes rare.

    noise: of the variant's scores, in logits, and of its boxes; drop: share of detections that it lacks.
    """
    pictures = np.repeat(np.arange(size), rng.negative_binomial(1.2, 1.2 / (1.2 + objects), size))
    shares = 1 / np.arange(1, labels + 1)
    shares /= shares.sum()
    main = rng.choice(labels, size, p=shares)
    classes = np.where(rng.random(len(pictures)) < 0.6, main[pictures], rng.choice(labels, len(pictures), p=shares))
    corners = make_boxes(rng, len(pictures))
    truth = Objects(pictures, corners, classes, (corners[:, 2:] - corners[:, :2]).prod(axis=1), np.zeros(len(pictures), bool))
    found = detect(truth, size, labels, rng, 3.0, jitter=0.06)
    return match(found, truth, size, labels), match(vary(found, rng, noise, drop), truth, size, labels)


def vary(found: Detected, rng: np.random.Generator, noise: float, drop: float) -> Detected:
    """The detections of a variant."""
    kept = found.select(rng.random(len(found.scores)) > drop)
    logits = np.log(kept.scores / (1 - kept.scores)) + rng.normal(0, noise, len(kept.scores))
    sides = np.tile(kept.corners[:, 2:] - kept.corners[:, :2], 2)
    corners = kept.corners + sides * rng.normal(0, 0.06 * noise, sides.shape)
    return Detected(kept.pictures, corners.astype(np.float32), (1 / (1 + np.exp(-logits))).astype(np.float32), kept.classes)


def draw_pixels(rng: np.random.Generator, size: int, labels: int, drift: float) -> tuple[PixelCounts, PixelCounts]:
    """A segmentation model and a variant of it on `size` pictures of few classes each, some of them rare, some pictures harder than others.

    drift: by how much more often the variant is wrong.
    """
    shares = rng.dirichlet(np.full(labels, 0.4) * np.geomspace(2, 0.15, labels), size)
    true = np.stack([rng.multinomial(PIXELS, share) for share in shares])
    hard = rng.beta(2, 8, size)
    worse = np.clip(hard * (1 + drift + rng.normal(0, 0.15, size)), 0, 1)
    wrong = np.random.default_rng(labels).dirichlet(np.full(labels, 0.5), labels)  # what each class is taken for, in every draw
    return _answer(rng, true, hard, wrong), _answer(rng, true, worse, wrong)


def _answer(rng: np.random.Generator, true: np.ndarray, errors: np.ndarray, wrong: np.ndarray) -> PixelCounts:
    size, labels = true.shape
    confusions = np.zeros((size, labels, labels + 1), int)
    for label in range(labels):
        shares = wrong[label] * errors[:, None] + (np.arange(labels) == label) * (1 - errors[:, None])
        confusions[:, label, :labels] = rng.multinomial(true[:, label], shares / shares.sum(axis=1, keepdims=True))
    return PixelCounts.of(confusions)
