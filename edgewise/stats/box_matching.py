"""Which detections find which objects, by the rules of COCO's own evaluation (cocoeval.py of pycocotools).

In a picture the detections of a class are taken by descending score. Each takes the object of its class that it overlaps most, of those
that no earlier one has taken; the overlap (intersection over union) must reach a threshold. An ignored object (a crowd, or one whose size
is outside of the range that is looked at) is taken only where no other is left, and what takes it counts neither for nor against the
model. A crowd is a region: it may be taken any number of times, and its overlap is the intersection over the area of the detection.

The work is done for all pictures, thresholds and ranges of size at once: first the best detection of every picture and class, then the
second best, and so on.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # square pixels, inclusive
MOST_DETECTIONS = 100  # of a class in a picture; further ones are left out
WRONG, RIGHT, IGNORED = 0, 1, 2  # states of a detection


@dataclass(frozen=True)
class Detected:
    """The detections of all pictures, in any order. pictures: int [k], the position of its picture; corners: float [k, 4], x0, y0, x1, y1
    in pixels of the picture; scores: float [k]; classes: int [k]."""

    pictures: np.ndarray
    corners: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def select(self, chosen: np.ndarray) -> "Detected":
        """Those of `chosen`, a mask or indices."""
        return Detected(self.pictures[chosen], self.corners[chosen], self.scores[chosen], self.classes[chosen])


@dataclass(frozen=True)
class Objects:
    """What is in the pictures. pictures, corners and classes as in Detected; areas: float [m], square pixels; crowd: bool [m]."""

    pictures: np.ndarray
    corners: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a detection and an object of the same picture and class: positions, int [pairs] each, and their overlap, float [pairs]."""

    detections: np.ndarray
    objects: np.ndarray
    iou: np.ndarray

    def select(self, chosen: np.ndarray | slice) -> "Overlaps":
        return Overlaps(self.detections[chosen], self.objects[chosen], self.iou[chosen])


@dataclass(frozen=True)
class Matches:
    """What the detections of a model are, and what could have been found: all that scores, and scores of resampled pictures, need.

    Detections are sorted by class, then by descending score (ties by picture). pictures, classes, scores: [k]; ranks: int [k], 0 for the
    highest score of its picture and class; states: uint8 [k, areas, thresholds], one of WRONG, RIGHT, IGNORED.
    object_pictures, object_classes: int [m]; counted: bool [m, areas], which objects are to be found. size: number of pictures.
    """

    size: int
    labels: int
    pictures: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    states: np.ndarray
    object_pictures: np.ndarray
    object_classes: np.ndarray
    counted: np.ndarray

    def detections_of(self, label: int) -> slice:
        """Where the detections of a class are."""
        start, stop = np.searchsorted(self.classes, (label, label + 1))
        return slice(int(start), int(stop))

    def objects_of(self, label: int, area: int) -> np.ndarray:
        """The pictures of the objects of a class that are to be found in a range of size, int [objects]."""
        chosen: np.ndarray = self.object_pictures[(self.object_classes == label) & self.counted[:, area]]
        return chosen


def match(found: Detected, truth: Objects, size: int, labels: int) -> Matches:
    """Match the detections of `size` pictures with their objects. labels: number of classes."""
    found, ranks = sort_detections(found)
    ignored = truth.crowd[:, None] | _outside(truth.areas)
    taken = assign(find_overlaps(found, truth), ranks, ignored, truth.crowd, IOU_THRESHOLDS)
    states = np.full((len(ranks), len(AREAS), len(IOU_THRESHOLDS)), WRONG, np.uint8)
    states[_outside(box_areas(found.corners))] = IGNORED
    detections, objects, areas, thresholds = taken
    states[detections, areas, thresholds] = np.where(ignored[objects, areas], IGNORED, RIGHT)
    scores, classes = found.scores.astype(np.float64), found.classes.astype(np.int64)
    return Matches(size, labels, found.pictures, classes, scores, ranks, states, truth.pictures, truth.classes, ~ignored)


def sort_detections(found: Detected, most: int = MOST_DETECTIONS) -> tuple[Detected, np.ndarray]:
    """The `most` best detections of each picture and class, sorted by class and descending score, and their ranks, int [k]."""
    order = np.lexsort((-found.scores, found.pictures, found.classes))
    pictures, classes = found.pictures[order], found.classes[order]
    first = np.ones(len(order), bool)
    first[1:] = (pictures[1:] != pictures[:-1]) | (classes[1:] != classes[:-1])
    places = np.arange(len(order))
    ranks = places - np.maximum.accumulate(np.where(first, places, 0))
    order, ranks = order[ranks < most], ranks[ranks < most]
    again = np.lexsort((ranks, found.pictures[order], -found.scores[order], found.classes[order]))
    return found.select(order[again]), ranks[again]


def find_overlaps(found: Detected, truth: Objects, least: float = float(IOU_THRESHOLDS[0])) -> Overlaps:
    """All pairs of the same picture and class that overlap by `least` or more."""
    labels = 1 + max((int(part.max()) for part in (found.classes, truth.classes) if len(part)), default=0)
    keys = truth.pictures.astype(np.int64) * labels + truth.classes
    order = np.argsort(keys, kind="stable")
    wanted = found.pictures.astype(np.int64) * labels + found.classes
    starts, stops = (np.searchsorted(keys[order], wanted, side) for side in ("left", "right"))
    counts = stops - starts
    detections = np.repeat(np.arange(len(wanted)), counts)
    places = np.arange(len(detections)) + np.repeat(starts - np.cumsum(counts) + counts, counts)
    objects = order[places]
    pairs = Overlaps(detections, objects, pairwise_iou(found.corners[detections], truth.corners[objects], truth.crowd[objects]))
    return pairs.select(pairs.iou >= least)


def box_areas(corners: np.ndarray) -> np.ndarray:
    """Width times height, float64 [k]."""
    wide = corners.astype(np.float64)
    areas: np.ndarray = (wide[:, 2] - wide[:, 0]) * (wide[:, 3] - wide[:, 1])
    return areas


def pairwise_iou(corners: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union of each row with the same row of `others`, float64 [k]; where `crowd`, over the area of the first box."""
    one, other = corners.astype(np.float64), others.astype(np.float64)
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.where((sides > 0).all(axis=1), sides.prod(axis=1), 0.0)
    whole = np.where(crowd, box_areas(corners), box_areas(corners) + box_areas(others) - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def assign(
    pairs: Overlaps, ranks: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Who takes which object, as indices: (detections, objects, ranges of size, thresholds), int [taken] each.

    ranks: int, of all detections; ignored: bool [objects, areas]; crowd: bool [objects].
    """
    order = np.lexsort((pairs.objects, pairs.iou, pairs.detections, ranks[pairs.detections]))
    pairs = pairs.select(order)
    rounds = np.searchsorted(ranks[pairs.detections], np.arange(ranks.max(initial=-1) + 2))
    free = np.ones((*ignored.shape, len(thresholds)), bool)
    found = [np.zeros((4, 0), np.int64)]
    for start, stop in pairwise(rounds):
        if start < stop:
            found.append(_assign_round(pairs.select(slice(start, stop)), free, ignored, thresholds))
            _, objects, areas, levels = found[-1]
            free[objects, areas, levels] = crowd[objects]
    detections, objects, areas, levels = np.concatenate(found, axis=1)
    return detections, objects, areas, levels


def _assign_round(pairs: Overlaps, free: np.ndarray, ignored: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """One detection of each picture and class takes its best object. pairs: sorted by detection, then by overlap. As `assign` returns."""
    count = len(pairs.iou)
    possible = free[pairs.objects] & (pairs.iou[:, None, None] >= thresholds)
    preference = np.arange(count)[:, None] + count * ~ignored[pairs.objects]  # [pairs, areas]
    starts = np.flatnonzero(np.append(True, pairs.detections[1:] != pairs.detections[:-1]))
    best = np.maximum.reduceat(np.where(possible, preference[:, :, None], -1), starts, axis=0)
    places, areas, levels = np.nonzero(best >= 0)
    chosen = best[places, areas, levels] % count
    return np.stack([pairs.detections[chosen], pairs.objects[chosen], areas, levels])


def _outside(areas: np.ndarray) -> np.ndarray:
    """Which areas are outside of each range of AREAS, bool [k, ranges]."""
    low, high = np.array(list(AREAS.values())).T
    outside: np.ndarray = (areas[:, None] < low) | (areas[:, None] > high)
    return outside
