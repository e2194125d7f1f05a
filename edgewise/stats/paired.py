"""Compare two models on the same samples: the difference, its interval, and how large a difference the samples could show.

All methods are paired: only samples on which the two models differ count. `gained` is the number of samples that only the variant gets
right, `lost` the number that only the reference gets right.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np

from edgewise.plugins import Comparison
from edgewise.stats.resampling import Statistic, jackknife, percentile_interval
from edgewise.stats.timing import t_quantile

CONFIDENCE = 0.95
POWER = 0.80  # a difference is called resolvable when 4 of 5 test sets of this size would show it
MOST_SAMPLES = 1_000_000_000  # more are no advice: such a difference is one of rounding
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
Z_POWER = NormalDist().inv_cdf(POWER)


def comparison(delta: float, interval: tuple[float, float], variance: float, samples: int, **scores: Any) -> Comparison:
    """A Comparison with what so many samples can show. variance: of the difference of one sample."""
    return Comparison(delta, interval, resolvable_difference(variance, samples), samples_to_resolve(delta, variance), scores)


def of_same_outputs(found: Comparison) -> Comparison:
    """The comparison of two models whose outputs are the same bit by bit: differences of 0 have the interval [0, 0], since there is nothing
    that other samples could show. (A difference may remain where each model has its own threshold.)"""
    pairs = {f"{name}_ci95": [0.0, 0.0] for name, value in found.scores.items() if name.endswith("_delta") and value == 0}
    interval = found.delta_ci95 if found.delta else (0.0, 0.0)
    return replace(found, delta_ci95=interval, scores={**found.scores, **pairs})


def compare_shares(right_reference: np.ndarray, right: np.ndarray) -> Comparison:
    """Compare two shares of right answers, bool [n] each: the difference with `share_interval`, flips in both directions, McNemar's p."""
    gained, lost = int(np.sum(right & ~right_reference)), int(np.sum(right_reference & ~right))
    samples, p = len(right), mcnemar_p(gained, lost)
    interval, discordant = share_interval(gained, lost, samples), discordance(gained, lost, samples)
    return comparison((gained - lost) / samples, interval, discordant, samples, flips_gained=gained, flips_lost=lost, mcnemar_p=p)


def share_interval(gained: int, lost: int, samples: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired shares, (gained - lost) / samples: Tango's, and in a direction in which nothing flipped
    at least the exact bound of 0 of `samples`.

    Tango's alone holds in as few as 92.8 of 100 test sets of 5 to 100 samples, this one in 94.6 or more (all outcomes counted, for rates of
    flips from 0 to 0.4: benchmarks/rare_cases.py).
    """
    low, high = tango_interval(gained, lost, samples)
    bound = zero_bound(samples)
    return low if lost else min(low, -bound), high if gained else max(high, bound)


def zero_bound(samples: int) -> float:
    """The exact upper bound of a share of which 0 of `samples` were seen, 1 - 0.025^(1/samples) (Clopper and Pearson, 1934)."""
    return float(1 - ((1 - CONFIDENCE) / 2) ** (1 / samples))


def compare_means(differences: np.ndarray) -> Comparison:
    """The mean of paired differences, float [n], with Student's interval."""
    samples = len(differences)
    delta, variance = float(np.mean(differences)), float(np.var(differences, ddof=1))
    half = t_quantile(0.5 + CONFIDENCE / 2, samples - 1) * math.sqrt(variance / samples)
    return comparison(delta, (delta - half, delta + half), variance, samples)


def compare_bootstrapped(delta: float, draws: np.ndarray, samples: int, smaller: int) -> Comparison:
    """A difference with its bootstrap distribution, float [draws]. smaller: number of samples in the smaller stratum.

    The interval holds both the percentile interval (timing.percentile_levels) and Student's with the bootstrap's standard error: of 5 to 20
    samples the first is too narrow. An end of the former that is 0 says that so few samples changed, all in one direction, that many
    draws hold none of them. Then it is `zero_bound` of the smaller stratum, as are both where no draw differs from another.
    """
    bound, spread = zero_bound(smaller), float(np.std(draws))
    variance = (spread or bound / Z) ** 2 * samples
    if not spread or smaller < 2:
        return comparison(delta, (delta - bound, delta + bound), variance, samples)
    low, high = percentile_interval(draws, max(smaller, 3))
    half = t_quantile(0.5 + CONFIDENCE / 2, smaller - 1) * spread * math.sqrt(smaller / (smaller - 1))
    ends = (-bound if low == 0 else low, bound if high == 0 else high)
    return comparison(delta, (min(ends[0], delta - half), max(ends[1], delta + half)), variance, samples)


def compare_jackknifed(differences: Statistic, samples: int) -> Comparison:
    """A smooth difference of scores, from how often each sample is taken, with the interval of `jackknife`.

    If it is the same without any one of the samples, the interval is that of 0 of `samples`, see compare_bootstrapped.
    """
    found = jackknife(differences, samples)
    if found.variance == 0:
        return compare_bootstrapped(found.value, np.full(2, found.value), samples, samples)
    return comparison(found.value, found.interval, found.variance, samples)


def tango_interval(gained: int, lost: int, samples: int) -> tuple[float, float]:
    """95 % score interval of the difference of two paired proportions, (gained - lost) / samples.

    Tango, Statistics in Medicine 17:891-908 (1998): all differences that the score test does not reject. Its coverage
    is right even with few flips or none, where the Wald interval has no width. Recommended by Fagerland,
    Lydersen and Laake, Statistics in Medicine 33:2850-2875 (2014).
    """
    delta = (gained - lost) / samples
    low = _bisect(lambda d: _tango_score(gained, lost, samples, d) < Z, -1.0, delta)
    high = _bisect(lambda d: _tango_score(gained, lost, samples, d) < -Z, delta, 1.0)
    return low, high


def _tango_score(gained: int, lost: int, samples: int, difference: float) -> float:
    """The score statistic for the hypothesis that the true difference is `difference`; decreasing in `difference`."""
    half_linear = (2 * samples - gained + lost) * difference - gained - lost
    constant = -lost * difference * (1 - difference)
    p_lost = (math.sqrt(max(half_linear**2 - 8 * samples * constant, 0.0)) - half_linear) / (4 * samples)
    variance = samples * (2 * p_lost + difference * (1 - difference))
    return (gained - lost - samples * difference) / math.sqrt(variance)


def _bisect(is_right_of_root: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(60):  # 2 / 2**60 is below the resolution of a float
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if is_right_of_root(middle) else (middle, high)
    return (low + high) / 2


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test: the probability of flips at least this uneven if both directions were equally likely.

    The binomial test of gained against gained + lost at 1/2 (Fagerland, Lydersen and Laake, BMC Med Res Methodol 13:91, 2013).
    """
    flips = gained + lost
    return min(1.0, 2 * _binomial_tail(max(gained, lost), flips, 0.5))


def exact_interval(hits: int, total: int) -> tuple[float, float]:
    """The exact 95 % interval of a proportion (Clopper and Pearson, Biometrika 26:404-413, 1934), by bisection of the binomial tails."""
    tail = (1 - CONFIDENCE) / 2

    def at_least(p: float, k: int) -> float:
        return _binomial_tail(k, total, p)

    low = _bisect(lambda p: at_least(p, hits) > tail, 0.0, hits / total) if hits else 0.0
    high = _bisect(lambda p: 1 - at_least(p, hits + 1) < tail, hits / total, 1.0) if hits < total else 1.0
    return low, high


def _binomial_tail(least: int, total: int, p: float) -> float:
    """The probability of `least` or more hits out of `total`: that of exactly `least`, times the sum of the other terms relative to it.

    Below the mean these terms would grow, so there it is 1 minus the other tail.
    """
    if least <= 0 or p == 1.0:
        return 1.0
    if least > total or p == 0.0:
        return 0.0
    if least <= total * p:
        return 1 - _binomial_tail(total - least + 1, total, 1 - p)
    log_choose = math.lgamma(total + 1) - math.lgamma(least + 1) - math.lgamma(total - least + 1)
    first = math.exp(log_choose + least * math.log(p) + (total - least) * math.log1p(-p))
    hits = np.arange(least, total)
    return min(1.0, first * (1 + float(np.cumprod((total - hits) / (hits + 1) * (p / (1 - p))).sum())))


def discordance(gained: int, lost: int, samples: int) -> float:
    """The share of samples on which only one model is right, with one flip added in each direction and two samples (Bonett and Price,
    J. Educ. Behav. Stat. 37:479-488, 2012), so that the variance is not 0 without flips."""
    return (gained + lost + 2) / (samples + 2)


def samples_to_resolve(delta: float, variance: float, power: float = POWER) -> int | None:
    """The number of samples that show a difference `delta` with the given power; None where MOST_SAMPLES are too few, as for a difference
    of 0. variance: of the paired difference of one sample; for shares the discordance.

    (z_0.975 + z_power)^2 variance / delta^2: Connor, Biometrics 43:207-211 (1987), without the small term delta^2
    that it subtracts, so that the number is slightly too high rather than too low.
    """
    deviations = (Z + NormalDist().inv_cdf(power)) * math.sqrt(variance)
    if deviations >= abs(delta) * math.sqrt(MOST_SAMPLES):
        return None
    return math.ceil((deviations / delta) ** 2)


def resolvable_difference(variance: float, samples: int) -> float:
    """The smallest difference that `samples` samples show with a power of 80 %: the inverse of `samples_to_resolve`."""
    return (Z + Z_POWER) * math.sqrt(variance / samples)


def kl_nats(reference: np.ndarray, variant: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the variant's softmax from the reference's, nats per sample; from logits [n, classes]."""
    log_p, log_q = _log_softmax(reference), _log_softmax(variant)
    return max(0.0, float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return logs
