"""The bootstrap over samples: intervals of any score that can be computed from how often each sample was drawn.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13.
"""

from collections.abc import Callable

import numpy as np

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


def percentile_interval(values: np.ndarray) -> Interval:
    """The 95 % percentile interval of a bootstrap distribution."""
    low, high = np.quantile(values, PERCENTILES)
    return float(low), float(high)
