"""Average precision and recall of a detector as COCO defines them, of all pictures and of any resampling of them.

    matches = match(found, truth, size=len(pictures), labels=len(names))
    summarize(matches)["map_50_95"]
    draws = bootstrap(lambda counts: mean_precision(matches, counts), np.zeros(matches.size, int))   # [draws, thresholds]

The average precision of a class is the mean, over 101 levels of recall from 0 to 1, of the highest precision at that recall or a higher
one (Lin et al., Microsoft COCO, 2014, and cocoeval.py of pycocotools). It rises only where a detection is right, so the right ones alone
are looked at; a resampling counts each picture as often as it was drawn, and needs neither a new match nor a new sort.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgewise.stats.box_matching import AREAS, IGNORED, IOU_THRESHOLDS, MOST_DETECTIONS, RIGHT, Matches

RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, MOST_DETECTIONS)  # of a class in a picture
ALL, AP50, AP75 = 0, 0, 5  # positions in AREAS and in IOU_THRESHOLDS
MAX_CELLS = 1_000_000  # of one array of a class, of draws times detections: it stays in the processor's cache
SIZES = tuple(name for name in AREAS if name != "all")
SCORE_NAMES: tuple[str, ...] = (
    *("map_50_95", "ap50", "ap75"),
    *(f"map_{size}" for size in SIZES),
    *(f"recall_{count}" for count in MAX_DETECTIONS),
    *(f"recall_{size}" for size in SIZES),
)


def summarize(matches: Matches) -> dict[str, float | None]:
    """The twelve figures of COCO by the names of SCORE_NAMES, each None where no object counts for it.

    recall_N: the mean over classes and thresholds of the share of objects found with at most N detections of a class in a picture.
    """
    by_area = [average(precision_by_class(matches, area=i), (1, 2)) for i in range(len(AREAS))]
    per_threshold = mean_precision(matches)[0]
    recalls = [average(recall_by_class(matches, most), (0, 1)) for most in MAX_DETECTIONS]
    by_size = [average(recall_by_class(matches, area=i), (0, 1)) for i in range(1, len(AREAS))]
    values = [by_area[ALL][0], per_threshold[AP50], per_threshold[AP75], *(value[0] for value in by_area[1:]), *recalls, *by_size]
    return {name: known(value) for name, value in zip(SCORE_NAMES, values, strict=True)}


def known(value: Any) -> float | None:
    """A score as a float; None for the NaN of what cannot be computed."""
    return None if np.isnan(value) else float(value)


def average(values: np.ndarray, axes: int | tuple[int, ...]) -> np.ndarray:
    """The mean of what is not NaN; NaN where nothing else is."""
    there = ~np.isnan(values)
    counts = there.sum(axis=axes)
    return np.where(counts > 0, np.where(there, values, 0.0).sum(axis=axes) / np.maximum(counts, 1), np.nan)


def mean_precision(matches: Matches, counts: np.ndarray | None = None) -> np.ndarray:
    """The average precision at each threshold of overlap, the mean over the classes that have objects: [draws, thresholds]."""
    return average(precision_by_class(matches, counts), 1)


def precision_by_class(matches: Matches, counts: np.ndarray | None = None, area: int = ALL) -> np.ndarray:
    """The average precision, float64 [draws, classes, thresholds], NaN for a class without objects.

    counts: how often each picture was drawn, [draws, pictures]; None: each of them once.
    """
    counts = np.ones((1, matches.size)) if counts is None else counts
    found = np.full((len(counts), matches.labels, len(IOU_THRESHOLDS)), np.nan)
    for label in np.unique(matches.object_classes):
        rows, objects = matches.detections_of(label), matches.objects_of(label, area)
        for part in _chunks(len(counts), rows.stop - rows.start + len(objects)):
            totals = counts[part][:, objects].sum(axis=1, dtype=np.float64)
            precision = _precision_of_class(matches.states[rows, area], counts[part][:, matches.pictures[rows]], totals)
            found[part, label] = np.where(totals[:, None] > 0, precision, np.nan)
    return found


def _chunks(draws: int, width: int) -> Iterator[slice]:
    step = max(1, MAX_CELLS // max(1, width))
    return (slice(start, min(start + step, draws)) for start in range(0, draws, step))


def _precision_of_class(states: np.ndarray, placed: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """The average precision of one class, [draws, thresholds]. states: [k, thresholds]; placed: counts of the detections' pictures,
    [draws, k], by descending score; totals: number of objects, [draws]."""
    running = np.cumsum(placed, axis=1, dtype=np.float64)
    found = np.zeros((len(placed), states.shape[1]))
    for i in range(states.shape[1]):
        right, ignored = np.flatnonzero(states[:, i] == RIGHT), np.flatnonzero(states[:, i] == IGNORED)
        if len(right):
            counted = running[:, right] - _running_at(placed[:, ignored], np.searchsorted(ignored, right))
            found[:, i] = _area_below(np.cumsum(placed[:, right], axis=1, dtype=np.float64), counted, totals)
    return found


def _running_at(placed: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The sums of the first `ends` columns, [draws, len(ends)]."""
    if not placed.shape[1]:
        return np.zeros((1, 1))
    sums = np.zeros((len(placed), placed.shape[1] + 1))
    np.cumsum(placed, axis=1, out=sums[:, 1:])
    return sums[:, ends]


def _area_below(right: np.ndarray, counted: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """The mean over RECALL_LEVELS of the highest precision from there on, [draws].

    right: the right detections down to each of them, [draws, hits]; counted: all that count down to there; totals: objects, [draws].
    """
    precision = right / np.maximum(counted, 1)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALL_LEVELS, right / np.maximum(totals, 1)[:, None], side="right")
    area: np.ndarray = (np.diff(reached, prepend=0, axis=1) * highest).sum(axis=1) / len(RECALL_LEVELS)
    return area


def recall_by_class(matches: Matches, most: int = MOST_DETECTIONS, area: int = ALL) -> np.ndarray:
    """The share of objects that are found with at most `most` detections of a class in a picture: float64 [classes, thresholds], NaN for
    a class without objects."""
    found = np.full((matches.labels, len(IOU_THRESHOLDS)), np.nan)
    for label in np.unique(matches.object_classes):
        rows, objects = matches.detections_of(label), matches.objects_of(label, area)
        right = (matches.states[rows, area] == RIGHT) & (matches.ranks[rows] < most)[:, None]
        if len(objects):
            found[label] = right.sum(axis=0) / len(objects)
    return found


def precision_at_levels(matches: Matches, label: int, threshold: int = AP50) -> np.ndarray:
    """The highest precision of a class at each of RECALL_LEVELS or a higher recall, for a figure: [101]; NaN without objects.

    Its mean is the average precision.
    """
    rows, objects = matches.detections_of(label), matches.objects_of(label, ALL)
    if not len(objects):
        return np.full(len(RECALL_LEVELS), np.nan)
    states = matches.states[rows, ALL, threshold]
    right = np.cumsum(states[states != IGNORED] == RIGHT)
    highest = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
    places = np.searchsorted(right / len(objects), RECALL_LEVELS)
    return np.append(highest, 0.0)[places]
