"""Statistics of two models that judged the same samples: what the difference is, and what it is too small to be.

Everything here is paired: a sample counts only where the two models differ about it. `gained` is the number of samples
that only the variant gets right, `lost` the number that only the reference gets right.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from stages.core.proof import sqnr_db

CONFIDENCE = 0.95
POWER = 0.80  # a difference is called resolvable when 4 of 5 test sets of this size would show it
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
Z_POWER = NormalDist().inv_cdf(POWER)


@dataclass(frozen=True)
class Comparison:
    """A variant against the reference on the same samples. Accuracies and differences are shares, not points.

    sqnr_db: signal-to-noise ratio of the outputs against the reference's, 200 where they are equal.
    resolvable: the smallest difference that this many samples can show; samples_needed: how many would show the
    difference that was seen, None where none was seen.
    """

    samples: int
    gained: int
    lost: int
    delta: float
    delta_ci95: tuple[float, float]
    mcnemar_p: float
    agreement: float
    sqnr_db: float
    kl_nats: float
    resolvable: float
    samples_needed: int | None

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        low, high = self.delta_ci95
        return low > 0 or high < 0


def compare(reference: np.ndarray, variant: np.ndarray, targets: np.ndarray) -> Comparison:
    """Compare logits [samples, classes] of two models with the targets, int [samples]. ValueError where shapes differ."""
    if reference.shape != variant.shape or len(reference) != len(targets):
        raise ValueError(f"outputs of shape {variant.shape} and {reference.shape} for {len(targets)} targets cannot be paired")
    answer_reference, answer = reference.argmax(axis=1), variant.argmax(axis=1)
    right_reference, right = answer_reference == targets, answer == targets
    gained, lost = int(np.sum(right & ~right_reference)), int(np.sum(right_reference & ~right))
    samples = len(targets)
    delta = (gained - lost) / samples
    return Comparison(
        samples=samples,
        gained=gained,
        lost=lost,
        delta=delta,
        delta_ci95=tango_interval(gained, lost, samples),
        mcnemar_p=mcnemar_exact(gained, lost),
        agreement=float(np.mean(answer == answer_reference)),
        sqnr_db=sqnr_db(reference, variant),
        kl_nats=kl_nats(reference, variant),
        resolvable=resolvable_difference(discordance(gained, lost, samples), samples),
        samples_needed=samples_to_resolve(delta, discordance(gained, lost, samples)),
    )


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


def _bisect(is_right_of_root, low: float, high: float) -> float:
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
    tail = sum(math.comb(flips, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**flips)) if flips else 1.0


def discordance(gained: int, lost: int, samples: int) -> float:
    """The share of samples on which one is right and the other wrong, with one flip added to each direction and two
    samples (Bonett and Price, J. Educ. Behav. Stat. 37:479-488, 2012), so that no flips does not mean no uncertainty."""
    return (gained + lost + 2) / (samples + 2)


def samples_to_resolve(delta: float, discordant: float, power: float = POWER) -> int | None:
    """How many samples would show a difference `delta` with the given power at this share of discordant samples.

    (z_0.975 + z_power)^2 discordant / delta^2: Connor, Biometrics 43:207-211 (1987), without its small subtrahend
    delta^2, which leaves the number a little too high rather than too low. None for a difference of 0.
    """
    if delta == 0:
        return None
    return math.ceil((Z + NormalDist().inv_cdf(power)) ** 2 * discordant / delta**2)


def resolvable_difference(discordant: float, samples: int) -> float:
    """The smallest difference that `samples` can show: the inverse of `samples_to_resolve`."""
    return (Z + Z_POWER) * math.sqrt(discordant / samples)


def kl_nats(reference: np.ndarray, variant: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the variant's softmax from the reference's, nats per sample."""
    log_p, log_q = _log_softmax(reference), _log_softmax(variant)
    return max(0.0, float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
