"""What an interval supports: one statement for scores, latency, the ranking, the Pareto front and gates.

    ratio_claim((0.42, 0.45))                    # "faster"
    ratio_claim((0.99, 1.01), margin=0.02)       # "equivalent": 2 % more or less do not matter to the user
    score_claim((-0.012, 0.004))                 # "not resolved"
    score_claim((-0.012, -0.004))                # "worse"

A direction is claimed where the whole 95 % interval lies on one side of "no difference". Equivalence is claimed where the whole interval
lies within a margin, which only the user can give. These are two one-sided tests (Schuirmann, J. Pharmacokinet. Biopharm. 15:657-680,
1987), each at 2.5 %: the usual 5 % would need a second interval of 90 % beside the one that is shown. Where both hold, the margin decides,
since the user has said that smaller differences do not matter.
"""

import math
from statistics import NormalDist

Interval = tuple[float, ...]  # (low, high), 95 %

LESS, MORE = "less", "more"
FASTER, SLOWER = "faster", "slower"
BETTER, WORSE = "better", "worse"
EQUIVALENT = "equivalent"
IDENTICAL = "identical"  # a fact and no claim: the interval is [0, 0], as outputs that are the same bit by bit have it
NOT_RESOLVED = "not resolved"
NO_CLAIM = "no claim"  # there is no interval: the profile is too short for one, or a measurement is missing

NOWHERE: Interval = (0.0, 0.0)
SAME: Interval = (1.0, 1.0)
POWER = 0.80
MOST_TIMES = 1000  # more repetitions than this are no advice


def claim(difference: Interval | None, margin: float | None = None) -> str:
    """LESS, MORE, EQUIVALENT, IDENTICAL, NOT_RESOLVED, or NO_CLAIM without an interval.

    difference: 95 % interval of a difference, 0 where there is none. margin: the largest difference that does not matter, greater than 0;
    None: no equivalence is claimed.
    """
    if difference is None:
        return NO_CLAIM
    low, high = difference
    if low == high == 0:
        return IDENTICAL
    if margin is not None and -margin < low and high < margin:
        return EQUIVALENT
    if high < 0:
        return LESS
    return MORE if low > 0 else NOT_RESOLVED


def ratio_claim(ratio: Interval | None, margin: float | None = None, beside: Interval | None = SAME) -> str:
    """FASTER, SLOWER, EQUIVALENT, NOT_RESOLVED or NO_CLAIM, from the 95 % interval of a latency's ratio to the reference's.

    margin: as a share: with 0.02 ratios between 1 / 1.02 and 1.02 do not matter. beside: the interval of the ratio that it is compared
    with: another variant's, or what the reference gives against itself (see `device_noise`); no claim where one of the two is None.
    """
    if ratio is None or beside is None:
        return NO_CLAIM
    found = claim(subtract(logs(ratio), logs(beside)), None if margin is None else math.log1p(margin))
    return {LESS: FASTER, MORE: SLOWER, IDENTICAL: NOT_RESOLVED}.get(found, found)


def score_claim(
    delta: Interval | None, margin: float | None = None, higher_is_better: bool = True, beside: Interval | None = NOWHERE
) -> str:
    """BETTER, WORSE, EQUIVALENT, IDENTICAL, NOT_RESOLVED or NO_CLAIM, from the 95 % interval of a paired difference, variant - reference.

    margin: in the unit of `delta`. beside: the interval of the difference that it is compared with; the reference's own is [0, 0].
    """
    if delta is None or beside is None:
        return NO_CLAIM
    found = claim(subtract(delta, beside), margin)
    return {LESS: WORSE, MORE: BETTER}.get(found, found) if higher_is_better else {LESS: BETTER, MORE: WORSE}.get(found, found)


def subtract(one: Interval, other: Interval) -> Interval:
    """An interval of the difference of two values, each with its own. It is wider than it needs to be, and holds however the two are
    correlated: it excludes 0 where the two intervals do not overlap."""
    return one[0] - other[1], one[1] - other[0]


def logs(ratio: Interval) -> Interval:
    return math.log(ratio[0]), math.log(ratio[1])


def device_noise(aa_ratio: Interval | None) -> Interval | None:
    """The interval of the reference against itself, made symmetric: what a device does in one direction it may do in the other."""
    if aa_ratio is None:
        return None
    noise = max(abs(bound) for bound in logs(aa_ratio))
    return math.exp(-noise), math.exp(noise)


def times_needed(difference: Interval, margin: float | None = None, power: float = POWER) -> int | None:
    """How many times as many independent units (visits, samples) would show what the middle of the interval suggests: a direction, or
    equivalence within the margin, whichever takes less, with this power. None: not with MOST_TIMES as many.

    The half-width shrinks with the square root of their number.
    """
    middle, half = (difference[0] + difference[1]) / 2, (difference[1] - difference[0]) / 2
    distance = max(abs(middle), 0.0 if margin is None else margin - abs(middle))
    share = (1 + NormalDist().inv_cdf(power) / NormalDist().inv_cdf(0.975)) * half
    if distance == 0 or share > distance * math.sqrt(MOST_TIMES):
        return None
    return max(1, math.ceil((share / distance) ** 2))
