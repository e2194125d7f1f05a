import math
import time

import numpy as np
import pytest
from scipy import optimize, special, stats

from edgewise.plugins import Predictions
from edgewise.stats import paired as paired
from edgewise.tasks import classification


def tango_by_likelihood(gained: int, lost: int, samples: int, difference: float) -> float:
    """The score statistic with the constrained maximum found numerically: shares nothing with the closed form."""

    def minus_log_likelihood(q: float) -> float:
        p = q + difference
        return -(special.xlogy(gained, p) + special.xlogy(lost, q) + special.xlogy(samples - gained - lost, 1 - p - q))

    low, high = max(0.0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12
    q = optimize.minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (gained - lost - samples * difference) / math.sqrt(samples * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(("gained", "lost", "samples"), [(1, 7, 21), (3, 1, 540), (40, 6, 540), (2, 9, 44), (12, 12, 100)])
def test_the_interval_is_where_a_numerical_score_test_stops_rejecting(gained, lost, samples):
    low, high = paired.tango_interval(gained, lost, samples)
    z = stats.norm.ppf(0.975)
    assert tango_by_likelihood(gained, lost, samples, low) == pytest.approx(z, abs=1e-3)
    assert tango_by_likelihood(gained, lost, samples, high) == pytest.approx(-z, abs=1e-3)


def test_the_interval_of_a_published_example():
    """Airway hyper-responsiveness before and after transplantation, n = 21: Fagerland, Lydersen and Laake (2014)."""
    assert paired.tango_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=6e-4)


def test_no_flips_still_leave_an_interval_with_a_width():
    low, high = paired.tango_interval(0, 0, 540)
    z = stats.norm.ppf(0.975)
    assert high == pytest.approx(z * z / (540 + z * z), rel=1e-6)  # Tango (1998): the closed form of this case
    assert low == pytest.approx(-high, rel=1e-6)


@pytest.mark.parametrize(("gained", "lost", "samples"), [(21, 0, 21), (0, 21, 21), (1, 0, 1)])
def test_all_flips_in_one_direction_stay_in_range(gained, lost, samples):
    low, high = paired.tango_interval(gained, lost, samples)
    assert -1 <= low <= (gained - lost) / samples <= high <= 1


@pytest.mark.parametrize(("p_gained", "p_lost", "samples"), [(0.005, 0.010, 540), (0.002, 0.002, 540), (0.03, 0.09, 120), (0.01, 0.0, 300)])
def test_the_interval_covers_the_truth_in_about_95_of_100_test_sets(p_gained, p_lost, samples):
    rng = np.random.default_rng(3)
    draws = rng.multinomial(samples, [p_gained, p_lost, 1 - p_gained - p_lost], 3000)
    cache = {(g, loss): paired.tango_interval(int(g), int(loss), samples) for g, loss, _ in set(map(tuple, draws.tolist()))}
    covered = np.mean([cache[g, loss][0] <= p_gained - p_lost <= cache[g, loss][1] for g, loss, _ in draws.tolist()])
    assert 0.93 <= covered <= 0.998


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 7), (7, 1), (5, 5), (30, 80), (300, 401)])
def test_mcnemar_is_the_binomial_test(gained, lost):
    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert paired.mcnemar_p(gained, lost) == pytest.approx(expected, rel=1e-9)


def process_s(call) -> float:
    """Seconds of this process that a call takes: other processes do not count."""
    begun = time.process_time()
    call()
    return max(time.process_time() - begun, 1e-5)


@pytest.mark.parametrize(("gained", "lost"), [(9_900, 10_100), (10_000, 10_000), (8_000, 12_000), (1_001_000, 999_000)])
def test_mcnemar_of_many_flips_is_exact_and_its_time_grows_no_faster_than_their_number(gained, lost):
    """The sum of exact integers took 50 s for 20,000 flips, a million times as long as for 200."""
    found = paired.mcnemar_p(gained, lost)
    times = (gained + lost) / 200
    assert process_s(lambda: paired.mcnemar_p(gained, lost)) < 10 * times * process_s(lambda: paired.mcnemar_p(99, 101))
    assert found == pytest.approx(stats.binomtest(gained, gained + lost, 0.5).pvalue, rel=1e-8)


@pytest.mark.lengthy
@pytest.mark.parametrize(("hits", "total"), [(1, 1_000_000), (499_000, 1_000_000), (999_999, 1_000_000)])
def test_the_exact_interval_of_many_samples_is_scipys_and_its_time_grows_no_faster_than_their_number(hits, total):
    found = paired.exact_interval(hits, total)
    assert process_s(lambda: paired.exact_interval(hits, total)) < 10 * total / 100 * process_s(lambda: paired.exact_interval(50, 100))
    assert found == pytest.approx([*stats.binomtest(hits, total).proportion_ci()], rel=1e-6)


def test_the_number_of_samples_shows_the_difference_four_times_in_five():
    p_gained, p_lost = 0.01, 0.03
    needed = paired.samples_to_resolve(p_gained - p_lost, p_gained + p_lost)
    draws = np.random.default_rng(5).multinomial(needed, [p_gained, p_lost, 1 - p_gained - p_lost], 800)
    shown = np.mean([paired.tango_interval(g, loss, needed)[1] < 0 for g, loss, _ in draws.tolist()])
    assert 0.76 <= shown <= 0.86


def test_resolvable_difference_and_samples_are_inverse():
    difference = paired.resolvable_difference(0.02, 540)
    assert paired.samples_to_resolve(difference, 0.02) in (540, 541)
    assert paired.samples_to_resolve(0.0, 0.02) is None


@pytest.mark.parametrize("delta", [1e-17, -1e-9, 1e-200])
def test_no_number_of_samples_is_named_for_a_difference_of_rounding(delta):
    assert paired.samples_to_resolve(delta, 0.02) is None
    assert paired.samples_to_resolve(delta, 0.0) == 0, "nothing varies, so nothing hides it"


def test_divergence_against_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(50, 7)).astype(np.float32), rng.normal(size=(50, 7)).astype(np.float32)
    p, q = special.softmax(a.astype(float), axis=1), special.softmax(b.astype(float), axis=1)
    assert paired.kl_nats(a, b) == pytest.approx(np.mean(stats.entropy(p, q, axis=1)), rel=1e-6)
    assert paired.kl_nats(a, a) == 0


def test_classification_counts_flips_in_both_directions():
    reference = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    variant = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 1, 0]]
    targets = np.array([0, 1, 2, 1, 2, 1])  # the reference is right on the first three
    result = classification.compare(classification.Settings(), *(Predictions({"y": each}, targets) for each in (reference, variant)))
    assert (result.scores["flips_gained"], result.scores["flips_lost"]) == (1, 1)
    assert result.delta == 0 and result.needed is None and not result.resolved
    assert result.scores["agreement"] == pytest.approx(0.5)
