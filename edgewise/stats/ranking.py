"""How well a score separates two kinds of samples, without any threshold: AUROC, average precision, recall at few false alarms.

Each is computed from weights, one a sample, so that one sort serves the score itself and its whole bootstrap distribution.
"""

from dataclasses import dataclass

import numpy as np

from edgewise.errors import VariantFailed

FALSE_ALARMS = (0.01, 0.05)
LARGEST = float(np.finfo(np.float64).max)
TINY = 1e-9  # shares of counts are not exact in binary


@dataclass(frozen=True)
class Ranking:
    """Samples in falling order of their score. ends: the last position of each group of equal scores, int [groups]."""

    order: np.ndarray
    positive: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray) -> "Ranking":
        """scores: float [n], high for what is to be found, also infinite; positive: bool [n]. VariantFailed where a score is NaN."""
        refuse_nan(scores)
        order = np.argsort(-scores, kind="stable")
        placed = scores[order]
        ends = np.flatnonzero(np.append(placed[1:] != placed[:-1], True))  # a difference of two infinities would be NaN
        return cls(order, positive[order], ends)

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hits and false alarms down to the end of each group, from weights [draws, n]: two arrays [draws, groups]."""
        placed = weights[:, self.order]
        hits = np.cumsum(np.where(self.positive, placed, 0), axis=1, dtype=np.float64)[:, self.ends]
        alarms = np.cumsum(np.where(self.positive, 0, placed), axis=1, dtype=np.float64)[:, self.ends]
        return hits, alarms


def refuse_nan(scores: np.ndarray) -> None:
    if np.isnan(scores).any():
        raise VariantFailed(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN, which ranks nowhere; look at the model's outputs")


def auroc(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """The area under the ROC curve, by trapezoids: the chance that a positive outranks a negative, ties counted half. [draws]"""
    hits, alarms = ranking.counts(weights)
    height = hits - np.diff(hits, prepend=0, axis=1) / 2
    area: np.ndarray = (np.diff(alarms, prepend=0, axis=1) * height).sum(axis=1) / (hits[:, -1] * alarms[:, -1])
    return area


def average_precision(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """The mean of the precision over the positives, by steps and not interpolated (as scikit-learn defines it). [draws]"""
    hits, alarms = ranking.counts(weights)
    precision = hits / np.maximum(hits + alarms, 1)
    mean: np.ndarray = (np.diff(hits, prepend=0, axis=1) * precision).sum(axis=1) / hits[:, -1]
    return mean


def recall_at(ranking: Ranking, weights: np.ndarray, share: float) -> np.ndarray:
    """The recall at the lowest threshold that rejects at most this share of the negatives. [draws]"""
    hits, alarms = ranking.counts(weights)
    allowed = alarms <= (share + TINY) * alarms[:, -1:]
    recalls: np.ndarray = np.where(allowed, hits, 0).max(axis=1) / hits[:, -1]
    return recalls


def summary(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """[draws, 2 + FALSE_ALARMS], in the order of NAMES."""
    scores = [auroc(ranking, weights), average_precision(ranking, weights)]
    return np.stack([*scores, *(recall_at(ranking, weights, share) for share in FALSE_ALARMS)], axis=1)


NAMES = ("auroc", "average_precision", *(f"recall_at_{100 * share:g}pct_false_alarms" for share in FALSE_ALARMS))


def threshold(scores: np.ndarray, positive: np.ndarray, share: float) -> float:
    """The lowest threshold, halfway between two scores, above which at most this share of the negatives lies.

    With fewer negatives than 1 / share it lies above all of them. Where no score is higher than that: just above the highest negative.
    Always finite. VariantFailed for a score that is NaN, and for a negative that is to stay below the threshold with an infinite score.
    """
    refuse_nan(scores)
    negatives = np.sort(scores[~positive])[::-1]
    kept = negatives[min(len(negatives) - 1, int((share + TINY) * len(negatives)))]
    if kept >= LARGEST:
        raise VariantFailed("a negative sample has an infinite score, and no threshold is higher; look at the model's outputs")
    above = scores[scores > kept]
    return _between(kept, above.min()) if len(above) else float(np.nextafter(max(kept, -LARGEST), np.inf))


def _between(low: float, high: float) -> float:
    """Halfway, from `low` on and below `high`; infinities stand for the largest numbers."""
    middle = max(low, -LARGEST) / 2 + min(high, LARGEST) / 2
    return float(middle if middle < high else low)


# Scores of a classifier, all read off one confusion matrix (rows: truth, columns: answer).


def confusion(targets: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts, int64 [classes, classes], from integer labels [n] and [n]."""
    return np.bincount(targets * classes + answers, minlength=classes * classes).reshape(classes, classes)


def recalls(matrix: np.ndarray) -> list[float | None]:
    """Share of each true class that was found; None for a class without samples."""
    return [float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(matrix)]


def confusion_summary(matrix: np.ndarray) -> dict[str, float]:
    """accuracy_top1; accuracy_balanced: mean recall over the classes with samples; macro_f1 over classes seen or answered."""
    hits = np.diag(matrix)
    found = [recall for recall in recalls(matrix) if recall is not None]
    sizes = matrix.sum(axis=0) + matrix.sum(axis=1)
    f1 = 2 * hits[sizes > 0] / sizes[sizes > 0]
    return {
        "accuracy_top1": float(hits.sum() / matrix.sum()),
        "accuracy_balanced": float(np.mean(found)),
        "macro_f1": float(f1.mean()),
    }
