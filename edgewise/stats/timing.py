"""Statistics of latency: quantiles for which the sample is large enough, and intervals by the bootstrap over processes.

Runs in one process are strongly correlated (they share its memory layout, its warm-up and the other load on the machine), so an interval
that takes them as independent is several times too narrow. Whole processes are drawn instead.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

Blocks = Sequence[np.ndarray]  # of one process: the wall times of each of its blocks, ms
Side = Sequence[Blocks]  # one entry for each process; processes of two sides with the same index ran as a pair
Interval = tuple[float, float]

CONFIDENCE = 0.95
DRAWS = 4000
MANY_DEGREES = 10_000  # of freedom: the series of Student's t has half as many terms
# The smallest sample for each quantile: with 6.6 / (1 - q) values at least six lie beyond it.
MIN_SAMPLES = {0.5: 1, 0.9: 64, 0.95: 130, 0.99: 662}


def pool_samples(side: Side) -> np.ndarray:
    """All times of a side in one array."""
    return np.concatenate([block for process in side for block in process])


def quantile(samples: np.ndarray, q: float) -> float | None:
    """A quantile (one of MIN_SAMPLES) by linear interpolation, as np.quantile; None if the sample is too small for it."""
    return _weighted_quantile(np.sort(samples), np.ones(len(samples), int), q) if len(samples) >= MIN_SAMPLES[q] else None


def t_quantile(p: float, degrees: int) -> float:
    """The quantile p of Student's t distribution, by bisection; from MANY_DEGREES on by three terms of its expansion in their inverse
    (Abramowitz and Stegun 26.7.5). ValueError for less than 1 degree of freedom."""
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom; Student's t needs 1 or more, that is 2 samples")
    if p < 0.5:
        return -t_quantile(1 - p, degrees)
    if degrees >= MANY_DEGREES:
        z = NormalDist().inv_cdf(p)
        return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
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


def percentile_levels(count: int, confidence: float = CONFIDENCE) -> Interval:
    """The two levels at which an interval is read off a bootstrap distribution of `count` drawn units, at least 3.

    A plain percentile interval of few units is too narrow; this is the expanded percentile interval of Hesterberg (2015),
    "What Teachers Should Know About the Bootstrap", section 5.3.
    """
    tail = NormalDist().cdf(np.sqrt(count / (count - 1)) * t_quantile((1 - confidence) / 2, count - 1))
    return tail, 1 - tail


def _interval(draws: np.ndarray, count: int) -> Interval:
    low, high = np.quantile(draws, percentile_levels(count))
    return float(low), float(high)


def _resample(statistic: Callable[[np.ndarray], float], units: int, seed: int) -> np.ndarray:
    """The statistic of DRAWS resamples of `units` units, [DRAWS]. statistic: how often each unit was drawn, [units] -> a number.

    Resamples that drew the same units are computed once: of 5 units there are 126, of 7 there are 1,716.
    """
    drawn = np.random.default_rng(seed).integers(units, size=(DRAWS, units))
    counts = np.stack([(drawn == unit).sum(axis=1) for unit in range(units)], axis=1)
    distinct, which = np.unique(counts, axis=0, return_inverse=True)
    return np.array([statistic(count) for count in distinct])[which.ravel()]


def _block_ratios(variant: Side, reference: Side) -> np.ndarray:
    """Median of each block of the variant / median of the reference's block of the same turn, [pairs, blocks]."""
    medians = [np.array([[np.median(block) for block in process] for process in side]) for side in (variant, reference)]
    ratios: np.ndarray = medians[0] / medians[1]
    return ratios


def median_ratio(variant: Side, reference: Side) -> float:
    """The median of (median of the variant's block / median of the reference's block) over all turns of all pairs."""
    return float(np.median(_block_ratios(variant, reference)))


def ratio_interval(variant: Side, reference: Side, seed: int = 0) -> Interval:
    """95 % interval of `median_ratio`: pairs are drawn with replacement, each with all of its turns.

    Drawing the turns within a pair again would count their scatter twice (Davison and Hinkley 1997, section 3.8): where 7 pairs of 40
    turns differ little, such intervals are wider by half and hold the truth in 99 of 100 cases, these in 94; with 6 pairs in 94, too,
    with 5 in 89 to 92.
    """
    turns = _block_ratios(variant, reference)
    return _interval(_resample(lambda counts: float(np.median(turns.repeat(counts, axis=0))), len(turns), seed), len(turns))


def log_ratio_error(variant: Side, reference: Side, seed: int = 0) -> float:
    """Standard error of the logarithm of `median_ratio`, by the same resampling of pairs, at least 2."""
    turns = _block_ratios(variant, reference)
    draws = _resample(lambda counts: float(np.median(turns.repeat(counts, axis=0))), len(turns), seed)
    return float(np.std(np.log(draws)) * math.sqrt(len(turns) / (len(turns) - 1)))


def median_interval(side: Side, seed: int = 0) -> Interval:
    """95 % interval of the median of all times of a side."""
    return quantile_interval(side, 0.5, seed)


def quantile_interval(side: Side, q: float, seed: int = 0) -> Interval:
    """95 % interval of a quantile of all times of a side: processes are drawn with replacement, each with all of its blocks.

    Drawing the blocks within a process again would count their scatter twice, see `ratio_interval`.
    """
    samples = pool_samples(side)
    owners = np.repeat(np.arange(len(side)), [sum(map(len, process)) for process in side])
    order = np.argsort(samples, kind="stable")
    samples, owners = samples[order], owners[order]
    return _interval(_resample(lambda counts: _weighted_quantile(samples, counts[owners], q), len(side), seed), len(side))


def _weighted_quantile(samples: np.ndarray, counts: np.ndarray, q: float) -> float:
    """np.quantile of the sorted `samples`, each repeated as often as `counts` says: by linear interpolation."""
    ends = np.cumsum(counts)
    place = q * (ends[-1] - 1)
    below, above = samples[np.searchsorted(ends, [np.floor(place), np.ceil(place)], side="right")]
    return float(below + (above - below) * (place - np.floor(place)))


def relative_half_width(interval: Interval, centre: float) -> float:
    """Half the width of an interval, as a share of `centre`."""
    return (interval[1] - interval[0]) / 2 / centre
