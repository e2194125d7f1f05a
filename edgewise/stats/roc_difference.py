"""Differences of two ROC curves on the same samples: of their areas, and of their recalls, with intervals that hold for few positives.

    compare_auroc(scores_of_the_reference, scores_of_the_variant, is_defect)        # a Comparison
    compare_recall(scores_of_the_reference, scores_of_the_variant, is_defect, 0.05) # of the recalls at 5 % false positives
    auroc_interval(scores, is_defect)                                               # of one model

The area is the mean, over all pairs of a positive and a negative, of whether the positive has the higher score. DeLong, DeLong and
Clarke-Pearson (Biometrics 44:837-845, 1988) take its variance from what each positive, and each negative, contributes. With 5 to 30
positives most of them contribute nothing to a difference, and that variance is too small, often 0. So each comparison of two scores is also
made a little soft, as if each score were one draw from a bell around it (the smoothed bootstrap of Silverman and Young, Biometrika
74:469-479, 1987, computed and not drawn): a pair that nearly changed places then counts as well. The interval holds both: DeLong's and the
soft one, each with Student's quantile at Satterthwaite's degrees of freedom.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from edgewise.plugins import Comparison
from edgewise.stats import paired, ranking
from edgewise.stats.ranking import Ranking, check_nan
from edgewise.stats.resampling import PERCENTILES, Interval, bootstrap
from edgewise.stats.timing import t_quantile

ENOUGH = 200  # of positives and of negatives, from which DeLong's variance alone is right
LOGISTIC = 1.702  # 1 / (1 + exp(-LOGISTIC z)) is within 0.01 of the normal distribution
MAX_CELLS = 2_000_000  # pairs that are held in memory at a time
RECALL_DRAWS = 1000
FEW = 5  # changes of the same direction that could be chance: the sign test needs 6 for 5 %


@dataclass(frozen=True)
class Placed:
    """For each positive the share of negatives below it, float [m], and for each negative the share of positives above it, float [n].

    Ties count half. A difference of two models is of the same kind.
    """

    positives: np.ndarray
    negatives: np.ndarray

    def minus(self, other: "Placed") -> "Placed":
        return Placed(self.positives - other.positives, self.negatives - other.negatives)

    @property
    def mean(self) -> float:
        return float(self.positives.mean())

    @property
    def variances(self) -> tuple[float, float]:
        """The two parts of the variance of the mean, of the positives and of the negatives (DeLong et al. 1988)."""
        return tuple(float(part.var(ddof=1)) / len(part) for part in (self.positives, self.negatives))  # type: ignore[return-value]

    @property
    def interval(self) -> Interval:
        """Student's 95 % interval of the mean, with the degrees of freedom of Satterthwaite (1946)."""
        parts = self.variances
        total = sum(parts)
        sizes = (len(self.positives), len(self.negatives))
        rest = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
        half = t_quantile(PERCENTILES[1], max(1, int(total**2 / rest))) * math.sqrt(total) if rest else 0.0
        return self.mean - half, self.mean + half

    @property
    def has_few_changes(self) -> bool:
        """Whether the changes could all be those of a few samples: of positives that moved, or of negatives."""
        return min(int(np.count_nonzero(part)) for part in (self.positives, self.negatives)) <= FEW

    def any_above(self) -> bool:
        return bool((self.positives > 0).any() or (self.negatives > 0).any())


def compare_auroc(before: np.ndarray, after: np.ndarray, positive: np.ndarray) -> Comparison:
    """The area of `after` minus that of `before`. Both: float [n], high for positives; positive: bool [n], with both kinds.

    Where no sample rose, and few fell or none, the interval reaches up to the exact bound (paired.zero_bound) of 0 of as many samples as
    the rarer kind has; likewise down. VariantFailed if a score is NaN.
    """
    check_nan(after)
    scores = [_split(_finite(each), positive) for each in (before, after)]
    hard = _place(*scores[1]).minus(_place(*scores[0]))
    least = min(len(hard.positives), len(hard.negatives))
    low, high = _hold_both(hard, _soften(*scores[1]).minus(_soften(*scores[0])) if least < ENOUGH else hard)
    bound = paired.zero_bound(least)
    if hard.has_few_changes:
        falls = Placed(-hard.positives, -hard.negatives)
        low, high = (low if falls.any_above() else min(low, -bound)), (high if hard.any_above() else max(high, bound))
    spread = (high - low) / 2 / paired.Z
    return paired.comparison(hard.mean, (max(low, -1.0), min(high, 1.0)), spread**2 * len(positive), len(positive))


def auroc_interval(scores: np.ndarray, positive: np.ndarray) -> Interval:
    """95 % interval of one area. A perfect one ends at the exact bound of 0 misplaced samples. Arguments as in `compare_auroc`."""
    parts = _split(_finite(scores), positive)
    hard = _place(*parts)
    least = min(map(len, parts))
    low, high = _hold_both(hard, _soften(*parts) if least < ENOUGH else hard)
    bound = paired.zero_bound(least)
    return max(0.0, min(low, 1 - bound) if hard.mean == 1 else low), min(1.0, max(high, bound) if hard.mean == 0 else high)


def compare_recall(before: np.ndarray, after: np.ndarray, positive: np.ndarray, max_fpr: float) -> Comparison:
    """The recall of `after` at a false positive rate of at most max_fpr, minus that of `before`. Arguments as in `compare_auroc`.

    The interval holds that of the positives that flip (paired.share_interval), as if the thresholds were known, and that of the bootstrap,
    in which the negatives that set them are drawn anew.
    """
    found = [find_recalled(scores, positive, max_fpr) for scores in (before, after)]
    gained, lost = int(np.sum(found[1] & ~found[0])), int(np.sum(found[0] & ~found[1]))
    orders = [Ranking.of(scores, positive) for scores in (before, after)]

    def difference(weights: np.ndarray) -> np.ndarray:
        recalls = [ranking.recall_at_fpr(order, weights, max_fpr) for order in orders]
        deltas: np.ndarray = recalls[1] - recalls[0]
        return deltas

    count, delta = int(positive.sum()), (gained - lost) / int(positive.sum())
    drawn = paired.compare_bootstrapped(delta, bootstrap(difference, positive, draws=RECALL_DRAWS), count, count)
    flips = paired.share_interval(gained, lost, count)
    return replace(drawn, delta_ci95=(max(-1.0, min(flips[0], drawn.delta_ci95[0])), min(1.0, max(flips[1], drawn.delta_ci95[1]))))


def find_recalled(scores: np.ndarray, positive: np.ndarray, max_fpr: float) -> np.ndarray:
    """Which positives lie above all negatives but the share max_fpr, bool [m]."""
    negatives = np.sort(scores[~positive])[::-1]
    allowed = int((max_fpr + ranking.ROUNDING) * len(negatives))
    recalled: np.ndarray = scores[positive] > negatives[allowed]
    return recalled


def _hold_both(hard: Placed, soft: Placed) -> Interval:
    """The smallest interval that holds both; all that a difference can be where one sample is the only one of its kind."""
    if min(len(hard.positives), len(hard.negatives)) < 2:
        return -1.0, 1.0
    ends = (hard.interval, soft.interval)
    return min(low for low, _ in ends), max(high for _, high in ends)


def _split(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return scores[positive], scores[~positive]


def _finite(scores: np.ndarray) -> np.ndarray:
    """Infinite scores (of probabilities of 0 and 1) just beyond the others, in the same order."""
    known = scores[np.isfinite(scores)].astype(np.float64)
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    step = (high - low) / 10 or 1.0
    found: np.ndarray = np.clip(scores.astype(np.float64), low - step, high + step)
    return found


def _place(positives: np.ndarray, negatives: np.ndarray) -> Placed:
    """By ranks, without looking at pairs."""
    below, above = (_mean_rank(np.sort(others), own) for own, others in ((positives, negatives), (negatives, positives)))
    return Placed(below / len(negatives), 1 - above / len(positives))


def _mean_rank(others: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How many of the sorted `others` lie below each of `own`, equal ones counted half."""
    ranks: np.ndarray = (np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")) / 2
    return ranks


def _soften(positives: np.ndarray, negatives: np.ndarray) -> Placed:
    """As `_place`, with each score as a bell around it. Its width: Scott's rule for the rarer kind, with the spread within the kinds."""
    m, n = len(positives), len(negatives)
    inner = math.sqrt((((positives - positives.mean()) ** 2).sum() + ((negatives - negatives.mean()) ** 2).sum()) / max(1, m + n - 2))
    width = inner * min(m, n) ** -0.2 * math.sqrt(2) / LOGISTIC  # the difference of two bells is wider by the square root of 2
    if width == 0:
        return _place(positives, negatives)
    above, below = np.zeros(m), np.zeros(n)
    for start in range(0, n, max(1, MAX_CELLS // m)):
        part = slice(start, start + max(1, MAX_CELLS // m))
        apart = np.clip((positives[:, None] - negatives[None, part]) / width, -50, 50)
        won = 1 / (1 + np.exp(-apart))
        above += won.sum(axis=1)
        below[part] = won.mean(axis=0)
    return Placed(above / n, below)
