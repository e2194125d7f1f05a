"""Ratios of latencies over visits: how much they move from one visit to the next, and what several visits say together.

All on the scale of log ratios. A visit has its own standard error (its pairs of processes differ) and the device moves between visits by
a variance of its own, which a study of many visits estimates (`between_visits`). The model is that of a meta-analysis with random effects
(DerSimonian and Laird, Controlled Clinical Trials 7:177-188, 1986); degrees of freedom are combined by Satterthwaite's rule (Biometrics
Bulletin 2:110-114, 1946), for which a difference of mean squares is a sum with a negative coefficient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.stats.timing import CONFIDENCE, t_quantile

LARGEST_DEGREES = 1000.0  # there Student's t is 0.1 % wider than the normal distribution


@dataclass(frozen=True)
class Measured:
    """One visit. log_ratio: of the median ratio; standard_error: of the log ratio within the visit, with its degrees of freedom."""

    log_ratio: float
    standard_error: float
    degrees: int

    @classmethod
    def of(cls, ratio: float, standard_error: float, degrees: int) -> "Measured":
        """standard_error: of the log ratio."""
        return cls(math.log(ratio), standard_error, degrees)


@dataclass(frozen=True)
class Spread:
    """How much log ratios move between visits: the variance beyond that within visits, with its degrees of freedom, at least 1.

    resolved: False where the visits' own errors hide it, and the variance is what may hide in them.
    """

    variance: float
    degrees: float
    resolved: bool = True

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class Estimate:
    """A log ratio with its standard error and degrees of freedom."""

    log_ratio: float
    standard_error: float
    degrees: float

    @property
    def ratio(self) -> float:
        return math.exp(self.log_ratio)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The two-sided interval of the ratio, by Student's t with the degrees of freedom rounded down."""
        half = t_quantile((1 + confidence) / 2, max(1, int(self.degrees))) * self.standard_error
        return math.exp(self.log_ratio - half), math.exp(self.log_ratio + half)


def measured_from_interval(ratio: float, interval: tuple[float, float], pairs: int) -> Measured:
    """A visit from its ratio and 95 % interval, for records that hold no more. pairs: of processes, at least 2.

    The standard error is half of the interval over the t quantile that made it as wide, so a single visit keeps its width.
    """
    half = (math.log(interval[1]) - math.log(interval[0])) / 2
    return Measured(math.log(ratio), half / t_quantile((1 + CONFIDENCE) / 2, pairs - 1), pairs - 1)


def between_visits(groups: Sequence[Sequence[Measured]]) -> Spread | None:
    """The spread over the visits of several models, each with its own mean. groups: the visits of one model each; None where no model has
    two visits.

    The difference of total variance and that within visits is 0 or less where a study was made in noise. Taken as it is, intervals of quiet
    visits after it held the truth in 67 to 90 of 100 simulated cases; so it is never taken for less than the total over the square root of
    its degrees of freedom, about its standard error. A study in quiet is not changed by that: 94 to 98 of 100 before and after.
    """
    repeated = [group for group in groups if len(group) > 1]
    if not repeated:
        return None
    freedoms = [len(group) - 1 for group in repeated]
    total = _weighted([float(np.var([visit.log_ratio for visit in group], ddof=1)) for group in repeated], freedoms)
    within = _weighted([float(np.mean([visit.standard_error**2 for visit in group])) for group in repeated], freedoms)
    within_degrees = sum(visit.degrees for group in repeated for visit in group)
    beyond, least = total - within, total / math.sqrt(sum(freedoms))
    if beyond < least:
        return Spread(least, float(sum(freedoms)), resolved=False)
    return Spread(beyond, max(1.0, _satterthwaite([(total, sum(freedoms)), (-within, within_degrees)])))


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    return float(np.average(values, weights=weights))


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """The degrees of freedom of a sum of independent estimated variances, each (value, degrees)."""
    uncertainty = sum(value**2 / degrees for value, degrees in parts if value)
    return sum(value for value, _ in parts) ** 2 / uncertainty if uncertainty else math.inf


def pool(visits: Sequence[Measured], spread: Spread | None) -> Estimate:
    """All visits of one model as one estimate, each weighed by the inverse of its variance. ValueError without a visit.

    spread: between visits; None: not known, so that the estimate speaks of these visits alone.
    """
    if not visits:
        raise ValueError("no visit to pool; give at least one")
    within = _tempered(visits)
    weights = _inverse_shares([variance + (spread.variance if spread else 0.0) for variance in within])
    own = [(weight**2 * variance, float(visit.degrees)) for weight, variance, visit in zip(weights, within, visits, strict=True)]
    parts = [*own, *([(sum(weight**2 for weight in weights) * spread.variance, spread.degrees)] if spread else [])]
    centre = sum(weight * visit.log_ratio for weight, visit in zip(weights, visits, strict=True))
    return Estimate(centre, math.sqrt(sum(value for value, _ in parts)), min(_satterthwaite(parts), LARGEST_DEGREES))


def _tempered(visits: Sequence[Measured]) -> list[float]:
    """The variance of each visit, at least the harmonic mean of all. With few pairs in a visit the smallest variance is small by chance,
    and weights that follow it give too narrow an interval: that of 5 visits of 6 pairs held the truth in 91 of 100 simulated cases, with
    this floor in 95."""
    own = [visit.standard_error**2 for visit in visits]
    floor = len(own) / sum(1 / variance for variance in own) if all(own) else 0.0
    return [max(variance, floor) for variance in own]


def _inverse_shares(variances: Sequence[float]) -> list[float]:
    """The inverse of each as a share of their sum; equal shares where one is 0."""
    inverse = [1 / variance for variance in variances] if all(variances) else [1.0] * len(variances)
    return [value / sum(inverse) for value in inverse]
