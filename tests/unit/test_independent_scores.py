"""Intervals of single scores and of their difference, against published values and scipy."""

import numpy as np
import pytest
from scipy import stats

from edgewise.stats.independent import Scored, bootstrapped_interval, difference_interval, mean_interval, wilson_interval


def of(hits: int, total: int) -> Scored:
    return Scored(hits / total, wilson_interval(hits, total))


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (1, 7), (48, 80), (265, 280), (10, 10)])
def test_wilson_is_that_of_scipy(hits, total):
    assert wilson_interval(hits, total) == pytest.approx(tuple(stats.binomtest(hits, total).proportion_ci(0.95, "wilson")))


@pytest.mark.parametrize(
    ("one", "other", "published"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((0, 10), (0, 10), (-0.2775, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_the_difference_of_two_proportions_is_newcombes(one, other, published):
    """The eight examples of table II of Newcombe (1998), method 10."""
    assert difference_interval(of(*one), of(*other)) == pytest.approx(published, abs=5e-5)


def test_the_mean_has_students_interval_and_is_never_below_zero():
    values = np.random.default_rng(0).exponential(2.0, 50)
    low, high = stats.t.interval(0.95, 49, values.mean(), stats.sem(values))
    assert mean_interval(values) == pytest.approx((low, high))
    assert mean_interval(np.array([0.0, 0.0, 9.0]))[0] == 0.0


def test_a_score_that_no_draw_moves_still_has_an_interval():
    low, high = bootstrapped_interval(1.0, np.ones(100), 20, 20)
    assert low == pytest.approx(0.025 ** (1 / 20)) and high == 1.0
    drawn = np.random.default_rng(0).normal(0.5, 0.05, 1000)
    low, high = bootstrapped_interval(0.5, drawn, 200, 200)
    assert (low, high) == pytest.approx((0.5 - 1.972 * 0.05, 0.5 + 1.972 * 0.05), abs=0.006)
