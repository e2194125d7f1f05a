"""The bootstrap and the jackknife over samples: intervals of any score that can be computed from how often each sample was drawn.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6, 11 and 13.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgewise.stats.timing import percentile_levels, t_quantile

DRAWS = 2000
MAX_CELLS = 4_000_000  # counts that are held in memory at a time
PERCENTILES = (0.025, 0.975)
Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]  # counts [draws, n] -> scores [draws, ...]


def bootstrap(statistic: Statistic, strata: np.ndarray, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """`statistic` of bootstrap samples, [draws, ...]. strata: int [n]; each stratum keeps its number of samples in every draw."""
    rng = np.random.default_rng(seed)
    step = max(1, MAX_CELLS // len(strata))
    return np.concatenate([statistic(draw_counts(strata, min(step, draws - start), rng)) for start in range(0, draws, step)])


def draw_counts(strata: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each sample was drawn with replacement from its stratum: float32 [draws, n]."""
    counts = np.zeros((draws, len(strata)), np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    return counts


def percentile_interval(values: np.ndarray, samples: int | None = None) -> Interval:
    """The 95 % percentile interval of a bootstrap distribution. samples: number of samples that were drawn, at least 3; with them it is a
    little wider, as few need (timing.percentile_levels)."""
    low, high = np.quantile(values, PERCENTILES if samples is None else percentile_levels(samples))
    return float(low), float(high)


@dataclass(frozen=True)
class Jackknifed:
    """A score, its interval, and its variance for one sample: that of n samples is an n-th of it."""

    value: float
    interval: Interval
    variance: float


def jackknife(statistic: Statistic, samples: int) -> Jackknifed:
    """A smooth score of 2 or more samples, with a 95 % interval from leaving each of them out: Student's, around the score less its bias.

    Of ratios of sums over few samples, in which some weigh much (pixels of a rare class), the bootstrap's percentile interval holds the
    truth in 83 to 92 of 100 cases, this one in 93 to 96 (tried with 30 to 233 pictures and 3 to 20 classes). It does not suit what jumps,
    as medians and average precision do.
    """
    value = float(statistic(np.ones((1, samples)))[0])
    step = max(1, MAX_CELLS // samples)
    blocks = (np.arange(start, min(start + step, samples)) for start in range(0, samples, step))
    each = np.concatenate([statistic(1.0 - (block[:, None] == np.arange(samples))) for block in blocks])
    center = samples * value - (samples - 1) * float(each.mean())
    variance = (samples - 1) * float(((each - each.mean()) ** 2).sum())
    half = t_quantile(PERCENTILES[1], samples - 1) * math.sqrt(variance / samples)
    return Jackknifed(value, (center - half, center + half), variance)
