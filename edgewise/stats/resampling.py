"""The bootstrap over samples: intervals of any score that can be computed from how often each sample was drawn."""

from collections.abc import Callable

import numpy as np

DRAWS = 2000
CELLS = 4_000_000  # drawn counts that are held in memory at a time
LEVELS = (0.025, 0.975)
Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]  # counts [draws, n] -> scores [draws, ...]


def distribution(statistic: Statistic, strata: np.ndarray, seed: int = 0) -> np.ndarray:
    """`statistic` over DRAWS bootstrap samples, [DRAWS, ...]. strata: int [n]; each keeps its number of samples in every draw."""
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // len(strata))
    return np.concatenate([statistic(draw(strata, min(step, DRAWS - start), rng)) for start in range(0, DRAWS, step)])


def draw(strata: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each sample was drawn with replacement from its stratum: float32 [draws, n]."""
    counts = np.zeros((draws, len(strata)), np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    return counts


def percentiles(values: np.ndarray) -> Interval:
    """The 95 % percentile interval of a bootstrap distribution."""
    low, high = np.quantile(values, LEVELS)
    return float(low), float(high)
