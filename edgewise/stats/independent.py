"""Scores of single models: the 95 % interval of each, and of the difference of two that were judged on samples of their own.

    before, after = wilson_interval(265, 280), wilson_interval(257, 280)
    difference_interval(Scored(257 / 280, after), Scored(265 / 280, before))   # (-0.072, 0.014)

Two models on the SAME samples are compared by pairs (stats.paired), which shows smaller differences.
"""

import math
from dataclasses import dataclass

import numpy as np

from edgewise.stats.paired import Z, compare_bootstrapped, compare_means

Interval = tuple[float, float]


@dataclass(frozen=True)
class Scored:
    """A score with its 95 % interval."""

    value: float
    interval: Interval


def wilson_interval(hits: int, total: int) -> Interval:
    """95 % score interval of the proportion hits / total (Wilson, J. Am. Stat. Assoc. 22:209-212, 1927)."""
    share, weight = hits / total, Z**2 / total
    centre, half = share + weight / 2, Z * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    low, high = (centre - half) / (1 + weight), (centre + half) / (1 + weight)
    return 0.0 if hits == 0 else low, 1.0 if hits == total else high


def mean_interval(values: np.ndarray) -> Interval:
    """Student's 95 % interval of the mean of values that are 0 or more, float [n], n >= 2."""
    low, high = compare_means(values).delta_ci95
    return max(0.0, low), high


def bootstrapped_interval(value: float, draws: np.ndarray, samples: int, smaller: int) -> Interval:
    """95 % interval of a score between 0 and 1, from its bootstrap distribution: as wide as that of paired.compare_bootstrapped, whose
    arguments these are."""
    low, high = compare_bootstrapped(value, draws, samples, smaller).delta_ci95
    return max(0.0, low), min(1.0, high)


def difference_interval(one: Scored, other: Scored) -> Interval:
    """95 % interval of one - other. On each side the distances from the two values to the ends of their intervals, squared, add up.

    With two Wilson intervals this is Newcombe's hybrid score interval, method 10 of Statistics in Medicine 17:873-890 (1998); Zou and
    Donner show it for intervals of any two independent estimates (Statistics in Medicine 27:1693-1702, 2008). Scores of the same samples
    rise and fall together, which makes the true interval narrower: this one then claims too little, and never too much.
    """
    difference = one.value - other.value
    below = math.hypot(one.value - one.interval[0], other.interval[1] - other.value)
    above = math.hypot(one.interval[1] - one.value, other.value - other.interval[0])
    return difference - below, difference + above
