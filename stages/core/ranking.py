"""How well a score separates two kinds of samples, without any threshold: AUROC, average precision, recall at few false alarms.

Each is computed from weights, one a sample, so that one sort serves the score itself and its whole bootstrap distribution.
"""

from dataclasses import dataclass

import numpy as np

FALSE_ALARMS = (0.01, 0.05)
TINY = 1e-9  # shares of counts are not exact in binary


@dataclass(frozen=True)
class Ranking:
    """Samples in falling order of their score. ends: the last position of each group of equal scores, int [groups]."""

    order: np.ndarray
    positive: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray) -> "Ranking":
        """scores: float [n], high for what is to be found; positive: bool [n]."""
        order = np.argsort(-scores, kind="stable")
        ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
        return cls(order, positive[order], ends)

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hits and false alarms down to the end of each group, from weights [draws, n]: two arrays [draws, groups]."""
        placed = weights[:, self.order]
        hits = np.cumsum(np.where(self.positive, placed, 0), axis=1, dtype=np.float64)[:, self.ends]
        alarms = np.cumsum(np.where(self.positive, 0, placed), axis=1, dtype=np.float64)[:, self.ends]
        return hits, alarms


def auroc(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """The area under the ROC curve, by trapezoids: the chance that a positive outranks a negative, ties counted half. [draws]"""
    hits, alarms = ranking.counts(weights)
    height = hits - np.diff(hits, prepend=0, axis=1) / 2
    return (np.diff(alarms, prepend=0, axis=1) * height).sum(axis=1) / (hits[:, -1] * alarms[:, -1])


def average_precision(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """The mean of the precision over the positives, by steps and not interpolated (as scikit-learn defines it). [draws]"""
    hits, alarms = ranking.counts(weights)
    precision = hits / np.maximum(hits + alarms, 1)
    return (np.diff(hits, prepend=0, axis=1) * precision).sum(axis=1) / hits[:, -1]


def recall_at(ranking: Ranking, weights: np.ndarray, share: float) -> np.ndarray:
    """The recall at the lowest threshold that rejects at most this share of the negatives. [draws]"""
    hits, alarms = ranking.counts(weights)
    allowed = alarms <= (share + TINY) * alarms[:, -1:]
    return np.where(allowed, hits, 0).max(axis=1) / hits[:, -1]


def summary(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """[draws, 2 + FALSE_ALARMS], in the order of NAMES."""
    scores = [auroc(ranking, weights), average_precision(ranking, weights)]
    return np.stack([*scores, *(recall_at(ranking, weights, share) for share in FALSE_ALARMS)], axis=1)


NAMES = ("auroc", "average_precision", *(f"recall_at_{100 * share:g}pct_false_alarms" for share in FALSE_ALARMS))


def threshold(scores: np.ndarray, positive: np.ndarray, share: float) -> float:
    """The lowest threshold, halfway between two scores, above which at most this share of the negatives lies.

    With fewer negatives than 1 / share it lies above all of them. Where no score is higher than that: just above the highest negative.
    """
    negatives = np.sort(scores[~positive])[::-1]
    highest_kept = negatives[min(len(negatives) - 1, int((share + TINY) * len(negatives)))]
    above = scores[scores > highest_kept]
    return float((highest_kept + above.min()) / 2 if len(above) else np.nextafter(highest_kept, np.inf))
