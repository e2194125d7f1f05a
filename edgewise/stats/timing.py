"""Statistics of latency: quantiles that the sample can carry, intervals by bootstrap over processes, when to stop.

Runs inside one process are strongly correlated (they share its memory layout, its warm-up, its neighbours), so an interval that
takes them for independent is several times too narrow. The unit that is drawn here is the process, then a block within it.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

Blocks = Sequence[np.ndarray]  # of one process: the wall times of each of its blocks
Side = Sequence[Blocks]  # one entry a process; the processes of two sides with equal index ran next to each other
Interval = tuple[float, float]

CONFIDENCE = 0.95
DRAWS = 4000
# The least sample for each quantile: 6.6 / (1 - q) leaves six values and more beyond it, and so a usable one.
LEAST_SAMPLES = {0.5: 1, 0.9: 64, 0.95: 130, 0.99: 662}


def pooled(side: Side) -> np.ndarray:
    """All samples of a side in one array."""
    return np.concatenate([block for process in side for block in process])


def quantile(samples: np.ndarray, q: float) -> float | None:
    """The quantile (one of LEAST_SAMPLES, linear interpolation), or None where the sample is too small to carry it."""
    return _weighted_quantile(np.sort(samples), np.ones(len(samples), int), q) if len(samples) >= LEAST_SAMPLES[q] else None


def t_quantile(p: float, degrees: int) -> float:
    """Student's t for a probability p, by bisection of its distribution. ValueError for less than 1 degree of freedom."""
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom; Student's t needs 1 or more, that is 2 samples")
    if p < 0.5:
        return -t_quantile(1 - p, degrees)
    factors = _t_factors(degrees)
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # pi / 2**61 is below the resolution of a float
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, degrees, factors) < 2 * p - 1 else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(degrees) if p > 0.5 else 0.0


def _t_factors(degrees: int) -> np.ndarray:
    """The products of the finite series of `_t_within`: 1, 1/2, 1*3/(2*4) ... for even degrees; 1, 2/3, 2*4/(3*5) ... for odd ones."""
    steps = np.arange(1, max(degrees // 2, 1))
    return np.cumprod(np.r_[1.0, (2 * steps - 1) / (2 * steps) if degrees % 2 == 0 else 2 * steps / (2 * steps + 1)])


def _t_within(angle: float, degrees: int, factors: np.ndarray) -> float:
    """The chance of |T| < sqrt(degrees) * tan(angle): Abramowitz and Stegun 26.7.3 and 26.7.4, exact for integer degrees."""
    sine, cosine = math.sin(angle), math.cos(angle)
    series = float(np.sum(factors * cosine ** (2 * np.arange(len(factors)))))
    if degrees % 2 == 0:
        return sine * series
    return 2 / math.pi * (angle + (sine * cosine * series if degrees > 1 else 0.0))


def levels(count: int, confidence: float = CONFIDENCE) -> Interval:
    """The quantiles of a bootstrap distribution that make an interval for `count` drawn units, at least 3.

    A plain percentile interval of few units is too narrow; this is the expanded percentile interval of Hesterberg (2015),
    "What Teachers Should Know About the Bootstrap", section 5.3.
    """
    tail = NormalDist().cdf(np.sqrt(count / (count - 1)) * t_quantile((1 - confidence) / 2, count - 1))
    return tail, 1 - tail


def _interval(draws: np.ndarray, count: int) -> Interval:
    low, high = np.quantile(draws, levels(count))
    return float(low), float(high)


def _turns(variant: Side, reference: Side) -> np.ndarray:
    """Median of the variant's block over that of the reference's block next to it, [pairs, blocks]."""
    medians = [np.array([[np.median(block) for block in process] for process in side]) for side in (variant, reference)]
    ratios: np.ndarray = medians[0] / medians[1]
    return ratios


def ratio(variant: Side, reference: Side) -> float:
    """Median over all turns of all pairs of (median of the variant's block / median of the reference's)."""
    return float(np.median(_turns(variant, reference)))


def ratio_interval(variant: Side, reference: Side, seed: int = 0) -> Interval:
    """95 % interval of `ratio`: pairs are drawn with replacement, each with all of its turns.

    Drawing the turns within a pair again would count their scatter twice (Davison and Hinkley 1997, section 3.8): where 7 pairs of 40
    turns differ little, such intervals are wider by half and hold the truth in 99 of 100 cases, these in 94; with 6 pairs in 94, too,
    with 5 in 89 to 92.
    """
    turns = _turns(variant, reference)
    pairs = len(turns)
    drawn = np.random.default_rng(seed).integers(pairs, size=(DRAWS, pairs))
    return _interval(np.array([np.median(turns[chosen]) for chosen in drawn]), pairs)


def median_interval(side: Side, seed: int = 0) -> Interval:
    """95 % interval of the median of all samples."""
    return quantile_interval(side, 0.5, seed)


def quantile_interval(side: Side, q: float, seed: int = 0) -> Interval:
    """95 % interval of a quantile of all samples: processes are drawn with replacement, each with all of its blocks.

    Drawing the blocks within a process again would count their scatter twice, see `ratio_interval`.
    """
    samples = pooled(side)
    owners = np.repeat(np.arange(len(side)), [sum(map(len, process)) for process in side])
    order = np.argsort(samples, kind="stable")
    samples, owners = samples[order], owners[order]
    drawn = np.random.default_rng(seed).integers(len(side), size=(DRAWS, len(side)))
    counts = (np.bincount(chosen, minlength=len(side)) for chosen in drawn)
    return _interval(np.array([_weighted_quantile(samples, count[owners], q) for count in counts]), len(side))


def _weighted_quantile(samples: np.ndarray, counts: np.ndarray, q: float) -> float:
    """np.quantile of the sorted `samples`, each repeated as often as `counts` says: by linear interpolation."""
    ends = np.cumsum(counts)
    place = q * (ends[-1] - 1)
    below, above = samples[np.searchsorted(ends, [np.floor(place), np.ceil(place)], side="right")]
    return float(below + (above - below) * (place - np.floor(place)))


def half_width(interval: Interval, centre: float) -> float:
    """Half the width of an interval as a share of `centre`."""
    return (interval[1] - interval[0]) / 2 / centre
