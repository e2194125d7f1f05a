"""Scores of classifiers: rankings without a threshold (AUROC, average precision, recall at a low false positive rate), the choice of a
threshold, and scores of a confusion matrix.

The ranking scores are computed from weights, one for each sample, so that one sort serves a score and its whole bootstrap distribution.
"""

from dataclasses import dataclass

import numpy as np

from edgewise.errors import VariantFailed

FALSE_POSITIVE_RATES = (0.01, 0.05)


def recall_name(share: float) -> str:
    """The name of the recall at this false positive rate."""
    return f"recall_at_fpr_{100 * share:g}pct"


SCORE_NAMES: tuple[str, ...] = ("auroc", "average_precision", *map(recall_name, FALSE_POSITIVE_RATES))
LARGEST = float(np.finfo(np.float64).max)
ROUNDING = 1e-9  # shares of counts are not exact in binary floating point


@dataclass(frozen=True)
class Ranking:
    """Samples in descending order of their score. positive: bool [n]; ends: last position of each group of equal scores, int [groups]."""

    order: np.ndarray
    positive: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray) -> "Ranking":
        """scores: float [n], high for positives, may be infinite; positive: bool [n]. VariantFailed if a score is NaN."""
        check_nan(scores)
        order = np.argsort(-scores, kind="stable")
        placed = scores[order]
        ends = np.flatnonzero(np.append(placed[1:] != placed[:-1], True))  # a difference of two infinities would be NaN
        return cls(order, positive[order], ends)

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives down to the end of each group, from weights [draws, n]: two arrays [draws, groups]."""
        placed = weights[:, self.order]
        hits = np.cumsum(np.where(self.positive, placed, 0), axis=1, dtype=np.float64)[:, self.ends]
        false_positives = np.cumsum(np.where(self.positive, 0, placed), axis=1, dtype=np.float64)[:, self.ends]
        return hits, false_positives


def check_nan(scores: np.ndarray) -> None:
    """VariantFailed if a score is NaN."""
    if np.isnan(scores).any():
        raise VariantFailed(
            f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN, which cannot be ranked; look at the model's outputs"
        )


def auroc(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """The area under the ROC curve by trapezoids, [draws]: the probability that a positive ranks above a negative, ties counted half
    (Hanley and McNeil, Radiology 143:29-36, 1982)."""
    hits, false_positives = ranking.counts(weights)
    height = hits - np.diff(hits, prepend=0, axis=1) / 2
    area: np.ndarray = (np.diff(false_positives, prepend=0, axis=1) * height).sum(axis=1) / (hits[:, -1] * false_positives[:, -1])
    return area


def average_precision(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """The mean precision at the positives, [draws], not interpolated, as sklearn.metrics.average_precision_score defines it."""
    hits, false_positives = ranking.counts(weights)
    precision = hits / np.maximum(hits + false_positives, 1)
    mean: np.ndarray = (np.diff(hits, prepend=0, axis=1) * precision).sum(axis=1) / hits[:, -1]
    return mean


def recall_at_fpr(ranking: Ranking, weights: np.ndarray, max_fpr: float) -> np.ndarray:
    """The recall at the lowest threshold whose false positive rate is at most max_fpr, [draws]."""
    hits, false_positives = ranking.counts(weights)
    allowed = false_positives <= (max_fpr + ROUNDING) * false_positives[:, -1:]
    recalls: np.ndarray = np.where(allowed, hits, 0).max(axis=1) / hits[:, -1]
    return recalls


def compute_scores(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """All scores, [draws, scores], in the order of SCORE_NAMES."""
    scores = [auroc(ranking, weights), average_precision(ranking, weights)]
    return np.stack([*scores, *(recall_at_fpr(ranking, weights, share) for share in FALSE_POSITIVE_RATES)], axis=1)


def choose_threshold(scores: np.ndarray, positive: np.ndarray, max_fpr: float) -> float:
    """The lowest threshold, halfway between two scores, above which at most the share max_fpr of the negatives lies.

    With fewer negatives than 1 / max_fpr it lies above all of them; if no score is higher than that, just above the highest negative.
    Always finite. VariantFailed if a score is NaN, or if a negative that must stay below the threshold has an infinite score.
    """
    check_nan(scores)
    negatives = np.sort(scores[~positive])[::-1]
    kept = negatives[min(len(negatives) - 1, int((max_fpr + ROUNDING) * len(negatives)))]
    if kept >= LARGEST:
        raise VariantFailed("a negative sample has an infinite score, and no threshold is higher; look at the model's outputs")
    above = scores[scores > kept]
    return _midpoint(kept, above.min()) if len(above) else float(np.nextafter(max(kept, -LARGEST), np.inf))


def _midpoint(low: float, high: float) -> float:
    """The middle of two scores, at least `low` and less than `high`; infinities count as the largest numbers."""
    middle = max(low, -LARGEST) / 2 + min(high, LARGEST) / 2
    return float(middle if middle < high else low)


def confusion_matrix(targets: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts, int64 [classes, classes], rows: truth, columns: answer, from integer labels [n] and [n]."""
    return np.bincount(targets * classes + answers, minlength=classes * classes).reshape(classes, classes)


def recall_per_class(matrix: np.ndarray) -> list[float | None]:
    """The recall of each class from a confusion matrix; None for a class without samples."""
    return [float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(matrix)]


def summarize_confusion(matrix: np.ndarray) -> dict[str, float]:
    """Scores of a confusion matrix: accuracy_top1; accuracy_balanced, the mean recall over the classes with samples; macro_f1, over the
    classes with samples or answers."""
    hits = np.diag(matrix)
    found = [recall for recall in recall_per_class(matrix) if recall is not None]
    sizes = matrix.sum(axis=0) + matrix.sum(axis=1)
    f1 = 2 * hits[sizes > 0] / sizes[sizes > 0]
    return {
        "accuracy_top1": float(hits.sum() / matrix.sum()),
        "accuracy_balanced": float(np.mean(found)),
        "macro_f1": float(f1.mean()),
    }
