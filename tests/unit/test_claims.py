"""What an interval supports: the one statement that verdicts, ranking, front and gates share."""

import math

import numpy as np
import pytest
from scipy import stats

from edgewise.stats import claims


@pytest.mark.parametrize(
    ("interval", "margin", "said"),
    [
        ((-0.02, -0.01), None, claims.LESS),
        ((0.01, 0.02), None, claims.MORE),
        ((-0.01, 0.02), None, claims.NOT_RESOLVED),
        ((0.0, 0.02), None, claims.NOT_RESOLVED),
        ((-0.01, 0.02), 0.03, claims.EQUIVALENT),
        ((-0.02, -0.01), 0.03, claims.EQUIVALENT),  # a difference that is shown and does not matter
        ((-0.04, -0.01), 0.03, claims.LESS),
        ((-0.01, 0.03), 0.03, claims.NOT_RESOLVED),  # the margin itself matters
        ((0.0, 0.0), None, claims.IDENTICAL),
        ((0.0, 0.0), 0.03, claims.IDENTICAL),
        (None, 0.03, claims.NO_CLAIM),
    ],
)
def test_a_claim_needs_the_whole_interval(interval, margin, said):
    assert claims.claim(interval, margin) == said


@pytest.mark.parametrize(
    ("ratio", "margin", "beside", "said"),
    [
        ((0.90, 0.95), None, (0.98, 1.02), "faster"),
        ((1.05, 1.10), None, (0.98, 1.02), "slower"),
        ((0.95, 0.985), None, (0.98, 1.02), "not resolved"),  # excludes 1, but the device differs from itself by as much
        ((0.99, 1.01), 0.05, (0.98, 1.02), "equivalent"),
        ((0.99, 1.035), 0.05, (0.98, 1.02), "not resolved"),
        ((0.99, 1.035), 0.05, claims.SAME, "equivalent"),
        ((1 / 1.05, 1.0), 0.05, claims.SAME, "not resolved"),  # the margin is as far below 1 as above, as a factor
        (None, 0.05, (0.98, 1.02), "no claim"),
        ((0.5, 0.6), 0.05, None, "no claim"),
        ((1.0, 1.0), None, claims.SAME, "not resolved"),
    ],
)
def test_a_ratio_is_claimed_beyond_what_it_stands_beside(ratio, margin, beside, said):
    assert claims.ratio_claim(ratio, margin, beside) == said


def test_two_variants_are_told_apart_where_their_intervals_do_not_overlap():
    assert claims.ratio_claim((0.30, 0.31), beside=(0.32, 0.40)) == "faster"
    assert claims.ratio_claim((0.30, 0.33), beside=(0.32, 0.40)) == "not resolved"
    assert claims.score_claim((-0.01, 0.01), beside=(-0.05, -0.02)) == "better"


@pytest.mark.parametrize(("higher", "said"), [(True, "worse"), (False, "better")])
def test_less_is_worse_where_more_is_better(higher, said):
    assert claims.score_claim((-0.02, -0.01), None, higher) == said
    assert claims.score_claim(None) == "no claim" and claims.score_claim((0.0, 0.0)) == "identical"


def test_what_a_device_does_in_one_direction_it_may_do_in_the_other():
    assert claims.device_noise((0.99, 1.05)) == pytest.approx((1 / 1.05, 1.05))
    assert claims.device_noise(None) is None


@pytest.mark.parametrize("samples", [8, 30, 200])
@pytest.mark.parametrize("spread", [0.2, 1.0, 3.0])
def test_a_difference_as_large_as_the_margin_is_called_equivalent_in_at_most_5_of_100_cases(samples, spread):
    rng = np.random.default_rng(samples)
    drawn = 1.0 + spread * rng.normal(size=(4000, samples))  # the truth is the margin
    half = stats.t.ppf(0.975, samples - 1) * drawn.std(axis=1, ddof=1) / math.sqrt(samples)
    said = [claims.claim((mean - h, mean + h), margin=1.0) for mean, h in zip(drawn.mean(axis=1), half, strict=True)]
    assert np.mean([each == claims.EQUIVALENT for each in said]) <= 0.04
    assert np.mean([each == claims.LESS for each in said]) <= 0.04


def test_the_number_of_repetitions_shows_it_four_times_in_five():
    rng, samples, truth = np.random.default_rng(1), 20, 0.1
    half = 1.96 / math.sqrt(samples)
    times = claims.times_needed((truth - half, truth + half))
    means = truth + rng.normal(size=4000) / math.sqrt(samples * times)
    shown = np.mean([claims.claim((mean - half / math.sqrt(times), mean + half / math.sqrt(times))) == claims.MORE for mean in means])
    assert shown == pytest.approx(0.8, abs=0.03)


def test_equivalence_may_be_nearer_than_a_direction():
    assert claims.times_needed((-0.009, 0.011)) > claims.times_needed((-0.009, 0.011), margin=0.02) == 1
    assert claims.times_needed((-0.02, 0.02)) is None and claims.times_needed((0.0, 0.0)) is None
