"""Statistics of two models that judged the same samples: what the difference is, and what it is too small to be.

Everything here is paired: a sample counts only where the two models differ about it. `gained` is the number of samples
that only the variant gets right, `lost` the number that only the reference gets right.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from edgewise.plugins import Comparison
from edgewise.stats.resampling import percentiles
from edgewise.stats.timing import t_quantile

CONFIDENCE = 0.95
POWER = 0.80  # a difference is called resolvable when 4 of 5 test sets of this size would show it
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
Z_POWER = NormalDist().inv_cdf(POWER)


def flips(right_reference: np.ndarray, right: np.ndarray) -> Comparison:
    """The difference of two shares of right answers, bool [samples] each, with the flips in both directions and their McNemar p."""
    gained, lost = int(np.sum(right & ~right_reference)), int(np.sum(right_reference & ~right))
    samples = len(right)
    delta, discordant = (gained - lost) / samples, discordance(gained, lost, samples)
    interval = tango_interval(gained, lost, samples)
    known = {"flips_gained": gained, "flips_lost": lost, "mcnemar_p": mcnemar_exact(gained, lost)}
    return Comparison(delta, interval, resolvable_difference(discordant, samples), samples_to_resolve(delta, discordant), known)


def means(differences: np.ndarray) -> Comparison:
    """The mean of paired differences, one a sample, float [samples], with Student's interval."""
    samples = len(differences)
    delta, variance = float(np.mean(differences)), float(np.var(differences, ddof=1))
    half = t_quantile(0.5 + CONFIDENCE / 2, samples - 1) * math.sqrt(variance / samples)
    return Comparison(
        delta, (delta - half, delta + half), resolvable_difference(variance, samples), samples_to_resolve(delta, variance), {}
    )


def bootstrapped(delta: float, draws: np.ndarray, samples: int, least: int) -> Comparison:
    """A difference with its bootstrap distribution, float [draws]. least: samples of the smaller stratum.

    Where nothing differs in any draw the percentiles have no width. The interval is then what none out of `least` leaves open, the
    exact (Clopper-Pearson) bound 1 - 0.025^(1/least).
    """
    spread = float(np.std(draws))
    open_share = 1 - ((1 - CONFIDENCE) / 2) ** (1 / least)
    interval = percentiles(draws) if spread > 0 else (delta - open_share, delta + open_share)
    variance = (spread or open_share / Z) ** 2 * samples
    return Comparison(delta, interval, resolvable_difference(variance, samples), samples_to_resolve(delta, variance), {})


def tango_interval(gained: int, lost: int, samples: int) -> tuple[float, float]:
    """The 95 % score interval of the difference of two paired proportions, (gained - lost) / samples.

    Tango, Statistics in Medicine 17:891-908 (1998): all differences that the score test does not reject. It holds its
    coverage with few flips and with none, where the textbook (Wald) interval has no width; recommended by Fagerland,
    Lydersen and Laake, Statistics in Medicine 33:2850-2875 (2014).
    """
    delta = (gained - lost) / samples
    low = _bisect(lambda d: _tango_score(gained, lost, samples, d) < Z, -1.0, delta)
    high = _bisect(lambda d: _tango_score(gained, lost, samples, d) < -Z, delta, 1.0)
    return low, high


def _tango_score(gained: int, lost: int, samples: int, difference: float) -> float:
    """The score statistic of the hypothesis that the true difference is `difference`; falls as `difference` grows."""
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


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p of McNemar's test: the chance of flips at least so uneven if both directions were equally likely.

    The binomial test of gained against gained + lost at 1/2 (Fagerland, Lydersen and Laake, BMC Med Res Methodol 13:91, 2013).
    """
    flips = gained + lost
    return min(1.0, 2 * _binomial_tail(max(gained, lost), flips, 0.5))


def exact_interval(hits: int, total: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) 95 % interval of a share, by bisection of the binomial tails."""
    tail = (1 - CONFIDENCE) / 2

    def at_least(p: float, k: int) -> float:
        return _binomial_tail(k, total, p)

    low = _bisect(lambda p: at_least(p, hits) > tail, 0.0, hits / total) if hits else 0.0
    high = _bisect(lambda p: 1 - at_least(p, hits + 1) < tail, hits / total, 1.0) if hits < total else 1.0
    return low, high


def _binomial_tail(least: int, total: int, p: float) -> float:
    """The chance of `least` or more hits of `total`: the chance of exactly `least`, times the sum of how the further ones compare to it.

    Below the mean these terms would rise, so there it is 1 minus the other tail.
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
    """The share of samples on which one is right and the other wrong, with one flip added to each direction and two
    samples (Bonett and Price, J. Educ. Behav. Stat. 37:479-488, 2012), so that no flips does not mean no uncertainty."""
    return (gained + lost + 2) / (samples + 2)


def samples_to_resolve(delta: float, variance: float, power: float = POWER) -> int | None:
    """How many samples would show a difference `delta` with the given power; variance: of one sample, for shares the discordance.

    (z_0.975 + z_power)^2 variance / delta^2: Connor, Biometrics 43:207-211 (1987), without its small subtrahend
    delta^2, which leaves the number a little too high rather than too low. None for a difference of 0.
    """
    if delta == 0:
        return None
    return math.ceil((Z + NormalDist().inv_cdf(power)) ** 2 * variance / delta**2)


def resolvable_difference(variance: float, samples: int) -> float:
    """The smallest difference that `samples` can show: the inverse of `samples_to_resolve`."""
    return (Z + Z_POWER) * math.sqrt(variance / samples)


def kl_nats(reference: np.ndarray, variant: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the variant's softmax from the reference's, nats per sample."""
    log_p, log_q = _log_softmax(reference), _log_softmax(variant)
    return max(0.0, float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return logs
