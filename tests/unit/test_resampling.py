"""Intervals by resampling pictures: the jackknife against its textbook cases, and how often intervals hold the truth."""

import numpy as np
import pytest
from scipy import stats

from edgewise.stats import average_precision, mean_iou, paired
from edgewise.stats.resampling import bootstrap, jackknife, percentile_interval
from edgewise.tasks import detection
from tests.support.judged_pictures import draw_matches, draw_pixels


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(0).normal(3, 2, 25)
    found = jackknife(lambda counts: counts @ values / counts.sum(axis=1), 25)
    expected = stats.t.interval(0.95, 24, values.mean(), values.std(ddof=1) / 5)
    assert found.value == pytest.approx(values.mean()) and found.variance == pytest.approx(values.var(ddof=1))
    assert found.interval == pytest.approx(expected)


def test_the_jackknife_takes_away_the_bias_of_a_variance():
    """Efron and Tibshirani, section 10.5: of the variance with n below it makes the one with n - 1."""
    values = np.random.default_rng(1).normal(size=12)

    def variance(counts: np.ndarray) -> np.ndarray:
        weights = counts / counts.sum(axis=1, keepdims=True)
        return weights @ values**2 - (weights @ values) ** 2

    found = jackknife(variance, 12)
    assert found.value == pytest.approx(values.var()) and np.mean(found.interval) == pytest.approx(values.var(ddof=1))


def test_blocks_of_the_jackknife_are_the_whole(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = jackknife(lambda counts: counts @ values / counts.sum(axis=1), 50)
    monkeypatch.setattr("edgewise.stats.resampling.MAX_CELLS", 120)
    assert jackknife(lambda counts: counts @ values / counts.sum(axis=1), 50).interval == pytest.approx(whole.interval, rel=1e-12)


def test_a_difference_that_no_sample_changes_still_has_an_interval():
    found = paired.compare_jackknifed(lambda counts: np.zeros(len(counts)), 40)
    assert found.delta == 0 and found.needed is None and found.resolvable > 0
    assert found.delta_ci95[1] == pytest.approx(1 - 0.025 ** (1 / 40)) and found.delta_ci95[0] == -found.delta_ci95[1]


def test_few_samples_widen_the_percentile_interval_as_students_t_does():
    values = np.random.default_rng(2).normal(size=200_000)
    for samples in (5, 30):
        expected = stats.t.ppf(0.975, samples - 1) * np.sqrt(samples / (samples - 1))
        assert percentile_interval(values, samples) == pytest.approx((-expected, expected), rel=0.02)
    assert paired.compare_bootstrapped(0.0, values, 100, 30).delta_ci95 == pytest.approx(percentile_interval(values, 30), rel=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_few_changes_in_one_direction_leave_open_what_lies_in_the_other(sign):
    """One of 11 samples fell: a third of all draws lack it, and their differences are 0."""
    draws = bootstrap(lambda counts: sign * counts[:, 0] / 11.0, np.zeros(11, int))
    low, high = paired.compare_bootstrapped(sign / 11, draws, 11, 11).delta_ci95
    bound = 1 - 0.025 ** (1 / 11)
    assert (low == pytest.approx(-bound)) if sign == 1 else (high == pytest.approx(bound))
    assert -0.4 < low < 0 < high < 0.4


def test_draws_are_as_many_as_asked_for():
    assert bootstrap(lambda counts: counts.sum(axis=1), np.zeros(9, int), draws=30).tolist() == [9.0] * 30


def test_intervals_of_mean_iou_hold_the_truth():
    """At least 93 of 100; benchmarks/box_intervals.py has more cases, and more repeats."""
    rng, repeats, (pictures, labels, drift) = np.random.default_rng(3), 500, (60, 5, 0.3)
    population = draw_pixels(rng, 50_000, labels, drift)
    truth = [mean_iou.mean_iou(each)[0] for each in population]
    held = np.zeros(2)
    for _ in range(repeats):
        before, after = draw_pixels(rng, pictures, labels, drift)
        own = jackknife(lambda counts, before=before: mean_iou.mean_iou(before, counts), pictures).interval
        low, high = paired.compare_jackknifed(
            lambda counts, before=before, after=after: mean_iou.mean_iou(after, counts) - mean_iou.mean_iou(before, counts), pictures
        ).delta_ci95
        held += [own[0] <= truth[0] <= own[1], low <= truth[1] - truth[0] <= high]
    assert (held / repeats >= 0.93).all()


def test_intervals_of_a_difference_in_mean_average_precision_hold_the_truth(monkeypatch):
    monkeypatch.setattr(detection, "DRAWS", 200)
    rng, repeats, case = np.random.default_rng(5), 100, (3, 4.0, 0.3, 0.03)
    population = draw_matches(rng, 5000, *case)
    truth = np.subtract(*(average_precision.mean_precision(each)[0].mean() for each in population[::-1]))
    intervals = [detection.compare_precision(*draw_matches(rng, 50, *case))[0].delta_ci95 for _ in range(repeats)]
    assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.93
