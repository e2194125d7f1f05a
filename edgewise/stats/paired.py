"""Compare two models on the same samples: the difference, its interval, and how large a difference the samples could show.

All methods are paired: only samples on which the two models differ count. `gained` is the number of samples that only the variant gets
right, `lost` the number that only the reference gets right.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from edgewise.plugins import Comparison
from edgewise.stats.resampling import Statistic, jackknife, percentile_interval
from edgewise.stats.timing import t_quantile

CONFIDENCE = 0.95
POWER = 0.80  # a difference is called resolvable when 4 of 5 test sets of this size would show it
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
Z_POWER = NormalDist().inv_cdf(POWER)


def compare_shares(right_reference: np.ndarray, right: np.ndarray) -> Comparison:
    """Compare two shares of right answers, bool [n] each: the difference with Tango's interval, flips in both directions, McNemar's p."""
    gained, lost = int(np.sum(right & ~right_reference)), int(np.sum(right_reference & ~right))
    samples = len(right)
    delta, discordant = (gained - lost) / samples, discordance(gained, lost, samples)
    interval = tango_interval(gained, lost, samples)
    known = {"flips_gained": gained, "flips_lost": lost, "mcnemar_p": mcnemar_p(gained, lost)}
    return Comparison(delta, interval, resolvable_difference(discordant, samples), samples_to_resolve(delta, discordant), known)


def compare_means(differences: np.ndarray) -> Comparison:
    """The mean of paired differences, float [n], with Student's interval."""
    samples = len(differences)
    delta, variance = float(np.mean(differences)), float(np.var(differences, ddof=1))
    half = t_quantile(0.5 + CONFIDENCE / 2, samples - 1) * math.sqrt(variance / samples)
    return Comparison(
        delta, (delta - half, delta + half), resolvable_difference(variance, samples), samples_to_resolve(delta, variance), {}
    )


def compare_bootstrapped(delta: float, draws: np.ndarray, samples: int, smaller: int) -> Comparison:
    """A difference with its bootstrap distribution, float [draws]. smaller: number of samples in the smaller stratum, which widens the
    percentile interval where it is small (timing.percentile_levels).

    If no draw differs, the percentile interval has no width. It is then the exact (Clopper-Pearson) bound for 0 of `smaller` samples,
    1 - 0.025^(1/smaller).
    """
    spread = float(np.std(draws))
    zero_bound = 1 - ((1 - CONFIDENCE) / 2) ** (1 / smaller)
    interval = percentile_interval(draws, max(smaller, 3)) if spread > 0 else (delta - zero_bound, delta + zero_bound)
    variance = (spread or zero_bound / Z) ** 2 * samples
    return Comparison(delta, interval, resolvable_difference(variance, samples), samples_to_resolve(delta, variance), {})


def compare_jackknifed(differences: Statistic, samples: int) -> Comparison:
    """A smooth difference of scores, from how often each sample is taken, with the interval of `jackknife`.

    If it is the same without any one of the samples, the interval is that of 0 of `samples`, see compare_bootstrapped.
    """
    found = jackknife(differences, samples)
    if found.variance == 0:
        return compare_bootstrapped(found.value, np.full(2, found.value), samples, samples)
    resolvable, needed = resolvable_difference(found.variance, samples), samples_to_resolve(found.value, found.variance)
    return Comparison(found.value, found.interval, resolvable, needed, {})


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
    """The number of samples that show a difference `delta` with the given power; None for a difference of 0. variance: of the paired
    difference of one sample; for shares the discordance.

    (z_0.975 + z_power)^2 variance / delta^2: Connor, Biometrics 43:207-211 (1987), without the small term delta^2
    that it subtracts, so that the number is slightly too high rather than too low.
    """
    if delta == 0:
        return None
    return math.ceil((Z + NormalDist().inv_cdf(power)) ** 2 * variance / delta**2)


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
