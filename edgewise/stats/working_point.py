"""A detector at the threshold that it is used with: which one is best, how good it is there, and what a variant finds again.

Average precision looks at the order of scores alone: a variant whose scores are all halved keeps it, and loses most detections of whoever
asks for scores above 0.5. So the detections above the threshold are counted, and the scores of the two models compared.
"""

from dataclasses import dataclass

import numpy as np

from edgewise.stats.average_precision import ALL, AP50
from edgewise.stats.box_matching import IGNORED, RIGHT, Detected, Matches, Objects, box_areas, find_overlaps

SAME_PLACE = 0.5  # overlap from which on two detections are of the same thing
SHIFT_PERCENTILES = (5, 50, 95)


@dataclass(frozen=True)
class WorkingPoint:
    """precision: None where nothing is above the threshold; recall: None where there is nothing to find. f1: 0 then."""

    threshold: float
    precision: float | None
    recall: float | None
    f1: float


@dataclass(frozen=True)
class FoundAgain:
    """The reference's detections above its threshold, and what a variant makes of them.

    pictures: int [k]; scores: float [k], of the reference; again: float [k], of the variant's detection of the same class and place
    whatever its score, NaN where there is none.
    """

    pictures: np.ndarray
    scores: np.ndarray
    again: np.ndarray

    def lost(self, threshold: float) -> np.ndarray:
        """Which of them the variant does not find above a threshold, bool [k]."""
        missed: np.ndarray = ~(self.again > threshold)
        return missed

    def shifts(self) -> tuple[float, ...] | None:
        """The percentiles of SHIFT_PERCENTILES of the variant's score minus the reference's; None if nothing is found again."""
        moved = (self.again - self.scores)[~np.isnan(self.again)]
        return tuple(np.percentile(moved, SHIFT_PERCENTILES).tolist()) if len(moved) else None


def best_threshold(matches: Matches) -> float:
    """The threshold with the highest F1 over all classes at an overlap of 0.5, halfway between two scores.

    Where no detection is right, nothing is above it: it is the highest score, or 1 without any detection.
    """
    scores, right = _counted(matches)
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, int)
    hits = np.cumsum(right)[ends]
    if not len(hits) or not hits[-1]:
        return float(scores[0]) if len(scores) else 1.0
    best = int(np.argmax(2 * hits / (ends + 1 + _wanted(matches))))
    lower = scores[ends[best + 1]] if best + 1 < len(ends) else 0.0
    return float((scores[ends[best]] + lower) / 2)


def judge_threshold(matches: Matches, threshold: float) -> WorkingPoint:
    """Precision, recall and F1 over all classes of the detections above a threshold, at an overlap of 0.5."""
    scores, right = _counted(matches)
    said, hits, wanted = int(np.sum(scores > threshold)), int(np.sum(right[scores > threshold])), _wanted(matches)
    f1 = 2 * hits / (said + wanted) if said + wanted else 0.0
    return WorkingPoint(threshold, hits / said if said else None, hits / wanted if wanted else None, f1)


def _counted(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all detections that count, descending, and which of them are right."""
    states = matches.states[:, ALL, AP50]
    there = np.flatnonzero(states != IGNORED)
    order = there[np.argsort(-matches.scores[there], kind="stable")]
    return matches.scores[order], states[order] == RIGHT


def _wanted(matches: Matches) -> int:
    return int(matches.counted[:, ALL].sum())


def find_again(reference: Detected, variant: Detected, threshold: float) -> FoundAgain:
    """Look for each of the reference's detections above `threshold` among the variant's: same picture, same class, overlap of 0.5 or more.

    Each is used once; those with the largest overlap first, and those above the threshold before all others.
    """
    wanted = reference.select(reference.scores.astype(np.float64) > threshold)
    count = len(wanted.scores)
    objects = Objects(wanted.pictures, wanted.corners, wanted.classes, box_areas(wanted.corners), np.zeros(count, bool))
    scores = variant.scores.astype(np.float64)
    pairs = find_overlaps(variant, objects, SAME_PLACE)
    pairs = pairs.select(np.lexsort((-pairs.iou, scores[pairs.detections] <= threshold)))
    again, used = np.full(count, np.nan), np.zeros(len(scores), bool)
    for detection, place in zip(pairs.detections.tolist(), pairs.objects.tolist(), strict=True):
        if not used[detection] and np.isnan(again[place]):
            again[place], used[detection] = scores[detection], True
    return FoundAgain(wanted.pictures, wanted.scores.astype(np.float64), again)


def matched_shares(matches: Matches) -> np.ndarray:
    """For each picture the share of its objects that its best detections find, as many of them as it has objects, at an overlap of 0.5:
    float64 [n], NaN for a picture without objects. A score of a few pictures that needs no threshold and no ranking across pictures."""
    wanted = np.bincount(matches.object_pictures[matches.counted[:, ALL]], minlength=matches.size)
    states = matches.states[:, ALL, AP50]
    there = np.flatnonzero(states != IGNORED)
    order = there[np.lexsort((-matches.scores[there], matches.pictures[there]))]
    pictures = matches.pictures[order]
    places = np.arange(len(order)) - np.searchsorted(pictures, pictures)
    best = order[places < wanted[pictures]]
    hits = np.bincount(matches.pictures[best], weights=states[best] == RIGHT, minlength=matches.size)
    shares: np.ndarray = np.divide(hits, wanted, out=np.full(matches.size, np.nan), where=wanted > 0)
    return shares
