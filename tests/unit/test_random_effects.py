"""Ratios over visits: how much visits lie apart, and what several of them say together. Coverage by simulation."""

import math

import numpy as np
import pytest

from benchmarks import own_variance
from edgewise.stats import timing
from edgewise.stats.random_effects import Estimate, Measured, Spread, between_visits, measured_from_interval, pool

SPREAD_OF_PAIRS = 0.015


def drawn(rng: np.random.Generator, deviation: float, visits: int, pairs: int, noise: float = 1.0) -> list[Measured]:
    """Visits of a model whose true log ratio is 0, on a device that moves by `deviation` from visit to visit. noise: a factor on the
    spread of pairs."""
    logs = rng.normal(0, deviation, visits)[:, None] + rng.normal(0, noise * SPREAD_OF_PAIRS, (visits, pairs))
    return [Measured(float(row.mean()), float(row.std(ddof=1) / math.sqrt(pairs)), pairs - 1) for row in logs]


def coverage(deviation: float, visits: int, studied: int, noise: float = 1.0, cases: int = 300) -> float:
    """How often the interval of so many visits of 6 pairs holds the truth, after a study of `studied` visits of 3 pairs of two variants."""
    rng, held = np.random.default_rng(visits + studied), 0
    for _ in range(cases):
        own = drawn(rng, deviation, visits, 6)
        study = [drawn(rng, deviation, studied, 3, noise) for _ in range(2)]
        low, high = pool(own, between_visits([*study, own])).interval()
        held += low < 1 < high
    return held / cases


@pytest.mark.lengthy
@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.03])
@pytest.mark.parametrize("visits", [1, 2, 5])
def test_intervals_hold_other_visits_too(deviation, visits):
    assert coverage(deviation, visits, studied=8) >= 0.93


@pytest.mark.lengthy
@pytest.mark.parametrize("noise", [4.0, 13.0])
@pytest.mark.parametrize("visits", [1, 2, 5])
def test_intervals_hold_after_a_study_in_noise_which_hides_what_moves(noise, visits):
    assert coverage(0.02, visits, studied=6, noise=noise, cases=200) >= 0.93


def test_a_visit_alone_does_not_hold_other_visits():
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        low, high = pool(drawn(rng, 0.03, 1, 6), None).interval()
        held += low < 1 < high
    assert held / 300 < 0.5


def test_a_single_visit_keeps_its_interval_where_nothing_is_known_of_others():
    visit = measured_from_interval(0.5, (0.49, 0.51020408), 6)
    assert pool([visit], None).interval() == pytest.approx((0.49, 0.51020408))


def test_repeats_narrow_the_interval_as_the_root_of_their_number():
    spread, one = Spread(0.02**2, 1000), Measured(0.0, 0.001, 1000)
    widths = {count: math.log(pool([one] * count, spread).interval()[1]) for count in (1, 4, 16)}
    assert widths[1] / widths[4] == pytest.approx(2, rel=1e-3) and widths[1] / widths[16] == pytest.approx(4, rel=1e-3)


def test_few_visits_of_a_study_cost_degrees_of_freedom():
    few, many = (pool([Measured(0.0, 0.001, 5)], Spread(0.02**2, degrees)).interval() for degrees in (3, 100))
    assert math.log(few[1]) / math.log(many[1]) == pytest.approx(3.182 / 1.984, rel=0.01)  # t quantiles from tables


def test_a_noisy_repeat_hardly_counts():
    good, noisy, spread = Measured(0.0, 0.01, 20), Measured(0.05, 0.1, 20), Spread(0.01**2, 30)
    both, alone = pool([good, noisy], spread), pool([good], spread)
    assert both.standard_error < 1.25 * alone.standard_error and abs(both.log_ratio) < 0.002  # equal weights: 3.6 times, 0.025


def test_visits_that_differ_no_more_than_their_errors_resolve_no_spread():
    hidden = between_visits([[Measured(0.0, 0.1, 5), Measured(0.01, 0.1, 5)]])
    assert hidden == Spread(pytest.approx(0.01**2 / 2), 1.0, resolved=False)
    assert between_visits([[Measured(0.0, 0.1, 5)]]) is None and between_visits([]) is None


def test_the_spread_is_that_beyond_the_errors_and_each_model_has_its_own_mean():
    rng = np.random.default_rng(3)
    groups = [
        [Measured(visit.log_ratio + shift, visit.standard_error, visit.degrees) for visit in drawn(rng, 0.02, 400, 3)] for shift in (0, 5)
    ]
    found = between_visits(groups)
    assert found is not None and found.deviation == pytest.approx(0.02, rel=0.06) and found.degrees > 300


def test_the_error_of_a_log_ratio_is_that_of_repeated_measurements():
    rng = np.random.default_rng(5)

    def measure() -> tuple[float, float]:
        sides = [[[np.exp(rng.normal(pair, 0.02, 3)) for _ in range(5)] for pair in rng.normal(0, 0.03, 6)] for _ in range(2)]
        return math.log(timing.median_ratio(*sides)), timing.log_ratio_error(*sides)

    found = np.array([measure() for _ in range(20)])
    assert np.median(found[:, 1]) == pytest.approx(found[:, 0].std(ddof=1), rel=0.4)


def test_no_visit_cannot_be_pooled():
    with pytest.raises(ValueError, match="at least one"):
        pool([], None)
    assert Estimate(math.log(0.25), 0.0, 1).ratio == pytest.approx(0.25)


@pytest.mark.lengthy
@pytest.mark.parametrize("movement", own_variance.MOVEMENTS)
def test_a_variant_that_moves_unlike_the_others_is_held_by_its_own_visits(movement):
    cell = own_variance.simulate(movement, 8, "own", cases=150)
    assert cell.holds >= 0.92


@pytest.mark.lengthy
def test_what_others_move_does_not_hold_a_variant_that_moves_more():
    by_others, own = (own_variance.simulate(0.03, 8, rule, cases=150) for rule in ("of others", "own"))
    assert by_others.holds < 0.75 < 0.92 <= own.holds and by_others.half_width < own.half_width
