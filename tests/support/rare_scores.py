"""Scores of two models on few positives and many negatives, whose true difference in AUROC is known: for simulations of intervals."""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

NORMAL = NormalDist()
AREAS = (0.6, 0.8, 0.95, 0.99)  # AUROC of the reference
CHANGES = {  # what the variant does to the scores: noise, loss of the positives, step that they are rounded to; in standard deviations
    "rounding": (0.02, 0.0, 0.0),
    "int8": (0.1, 0.0, 0.0),
    "noisier": (0.5, 0.0, 0.0),
    "worse": (0.1, 0.3, 0.0),
    "steps": (0.0, 0.0, 0.5),
    "skewed": (0.3, 0.0, 0.0),  # scores are log-normal
}


@dataclass(frozen=True)
class Drawn:
    """scores: of the reference, of the variant, and which samples are positive; truth: the difference in AUROC of the population."""

    scores: tuple[np.ndarray, np.ndarray, np.ndarray]
    truth: float


def draw_scores(rng: np.random.Generator, positives: int, negatives: int, area: float, change: str) -> Drawn:
    """The binormal model: both kinds are normal with a standard deviation of 1, and `area` sets how far they lie apart."""
    noise, loss, step = CHANGES[change]
    positive = np.arange(positives + negatives) < positives
    before = rng.normal(size=len(positive)) + apart(area) * positive
    after = before + noise * rng.normal(size=len(positive)) - loss * positive
    if step:
        return Drawn((before, np.round(after / step), positive), stepped_area(area, step) - area)
    if change == "skewed":
        before, after = np.exp(before), np.exp(after)
    return Drawn((before, after, positive), NORMAL.cdf((apart(area) - loss) / math.sqrt(2 * (1 + noise**2))) - area)


def apart(area: float) -> float:
    return math.sqrt(2) * NORMAL.inv_cdf(area)


@lru_cache
def stepped_area(area: float, step: float) -> float:
    """The area of scores that are rounded to multiples of `step`, ties counted half."""
    edges = (np.arange(-80, 82) - 0.5) * step
    shares = [np.diff([NORMAL.cdf(edge - mean) for edge in edges]) for mean in (apart(area), 0.0)]
    below = np.cumsum(shares[1]) - shares[1] / 2
    return float((shares[0] * below).sum())
