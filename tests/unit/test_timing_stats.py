"""Quantiles and intervals of latency, against scipy and against simulations whose truth is known."""

import numpy as np
import pytest
import scipy.stats

from edgewise.stats import timing as ts


def correlated(random: np.random.Generator, processes: int, blocks: int = 2, runs: int = 60, true_ms: float = 1.0) -> list:
    """Runs of a process share its own level (2 %) and their block's (0.5 %); single runs scatter by 1 %, some far out."""
    side = []
    for level in random.normal(1, 0.02, processes):
        bases = true_ms * level * random.normal(1, 0.005, blocks)
        side.append([base * (random.normal(1, 0.01, runs) + (random.random(runs) < 0.05) * random.exponential(1, runs)) for base in bases])
    return side


@pytest.mark.parametrize(("q", "least"), [(0.9, 64), (0.95, 130), (0.99, 662)])
def test_a_percentile_that_the_sample_cannot_carry_is_null(q, least):
    samples = np.random.default_rng(0).exponential(size=least)
    assert ts.quantile(samples[:-1], q) is None
    assert ts.quantile(samples, q) == pytest.approx(scipy.stats.mstats.mquantiles(samples, q, 1, 1)[0])


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 30, 31, 200, 9_999, 10_000, 100_000, 10**9])
@pytest.mark.parametrize("p", [0.0005, 0.025, 0.5, 0.9, 0.975, 0.9995])
def test_t_quantile_against_scipy(p, degrees):
    assert ts.t_quantile(p, degrees) == pytest.approx(scipy.stats.t.ppf(p, degrees), rel=1e-8, abs=1e-12)


def test_t_quantile_of_no_degrees_of_freedom_is_refused():
    with pytest.raises(ValueError, match="0 degrees of freedom"):
        ts.t_quantile(0.975, 0)


def test_levels_widen_with_few_units_and_end_at_the_plain_percentiles():
    tails = [ts.percentile_levels(n)[0] for n in (3, 5, 9, 30, 10_000)]
    assert tails == sorted(tails) and tails[-1] == pytest.approx(0.025, rel=0.01) and tails[0] < 0.002


def test_ratio_interval_of_independent_pairs_is_scipys():
    """One block a process and one run a block: then it is the ordinary bootstrap of a median of ratios."""
    random = np.random.default_rng(1)
    variant, reference = random.normal(2, 0.1, 25), random.normal(1, 0.05, 25)
    expected = scipy.stats.bootstrap(
        (variant / reference,),
        np.median,
        confidence_level=1 - 2 * ts.percentile_levels(25)[0],
        method="percentile",
        n_resamples=20_000,
        random_state=random,
    ).confidence_interval
    given = ts.ratio_interval([[np.array([v])] for v in variant], [[np.array([r])] for r in reference])
    assert given == pytest.approx((expected.low, expected.high), rel=0.01)


@pytest.mark.parametrize("units", [3, 5, 12])
def test_resamples_are_those_of_the_plain_loop(units):
    """Equal resamples are computed once, which changes no bit of the result."""
    values = np.random.default_rng(3).normal(size=units)
    drawn = np.random.default_rng(7).integers(units, size=(ts.DRAWS, units))
    found = ts._resample(lambda counts: float(np.median(values.repeat(counts))), units, 7)
    assert found.tolist() == [float(np.median(values[chosen])) for chosen in drawn]


def test_median_interval_of_independent_samples_is_scipys():
    random = np.random.default_rng(2)
    samples = random.exponential(size=41)
    expected = scipy.stats.bootstrap(
        (samples,),
        np.median,
        confidence_level=1 - 2 * ts.percentile_levels(41)[0],
        method="percentile",
        n_resamples=20_000,
        random_state=random,
    ).confidence_interval
    assert ts.median_interval([[np.array([s])] for s in samples]) == pytest.approx((expected.low, expected.high), rel=0.05)


@pytest.mark.lengthy
def test_the_interval_of_many_turns_is_no_wider_than_their_scatter_asks(monkeypatch):
    """Where only the turns scatter: as wide as the middle 95 % of what other sessions find, and holding the truth as often."""
    monkeypatch.setattr(ts, "DRAWS", 1000)
    random, pairs, turns = np.random.default_rng(1), 7, 40
    found = []
    for _ in range(80):
        sides = [[list(1 + 0.04 * random.standard_t(3, (turns, 1))) for _ in range(pairs)] for _ in range(2)]
        found.append((ts.median_ratio(*sides), *ts.ratio_interval(*sides)))
    points, low, high = np.array(found).T
    spread = np.subtract(*np.quantile(points, [0.975, 0.025]))
    assert np.mean((low <= 1) & (high >= 1)) > 0.88
    assert 0.8 < np.median(high - low) / spread < 1.35


@pytest.mark.lengthy
@pytest.mark.parametrize("processes", [5, 7, 9])
def test_intervals_cover_the_truth_where_runs_are_correlated(processes, monkeypatch):
    monkeypatch.setattr(ts, "DRAWS", 1000)
    random = np.random.default_rng(processes)
    ratio_hits = median_hits = iid_hits = 0
    rounds = 100
    for _ in range(rounds):
        variant, reference = correlated(random, processes), correlated(random, processes, true_ms=2.0)
        low, high = ts.ratio_interval(variant, reference)
        ratio_hits += low <= 0.5 <= high
        truth = 1.0006  # the far-out runs move the median by this much
        low, high = ts.median_interval(variant)
        median_hits += low <= truth <= high
        pooled = ts.pool_samples(variant)
        drawn = np.median(random.choice(pooled, (100, len(pooled))), axis=1)
        iid_hits += np.quantile(drawn, 0.025) <= truth <= np.quantile(drawn, 0.975)
    assert ratio_hits / rounds >= 0.90 and median_hits / rounds >= 0.90, "95 %, less three standard errors"
    assert iid_hits / rounds < 0.5, "what an interval that takes runs for independent would do"


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_the_interval_of_runs_that_are_all_alike_in_every_process_is_their_quantile(q):
    side = [[np.tile([1.0, 2.0], 40)]] * 5
    assert ts.quantile_interval(side, q) == pytest.approx((ts.quantile(ts.pool_samples(side), q),) * 2)


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_a_quantile_lies_in_its_own_interval(q, monkeypatch):
    """Also with the few distinct values that a coarse clock gives."""
    monkeypatch.setattr(ts, "DRAWS", 300)
    random = np.random.default_rng(8)
    for _ in range(60):
        processes, runs, values = random.integers(3, 9), random.integers(22, 40), random.integers(2, 20)
        side = [[random.integers(values, size=runs).astype(float)] for _ in range(processes)]
        low, high = ts.quantile_interval(side, q)
        assert low <= ts.quantile(ts.pool_samples(side), q) <= high


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_weighted_quantile_is_numpys_of_the_repeated_samples(q):
    random = np.random.default_rng(9)
    for size in range(1, 40):
        samples, counts = np.sort(random.normal(size=size)), random.integers(0, 4, size)
        counts[random.integers(size)] = 2
        assert ts._weighted_quantile(samples, counts, q) == pytest.approx(np.quantile(samples.repeat(counts), q))


@pytest.mark.lengthy
def test_the_reported_median_is_not_outside_a_point_interval_by_a_rounding():
    """Two formulas of one quantile may differ in the last bit; where all processes have the same runs that is the whole interval."""
    random = np.random.default_rng(11)
    for _ in range(40):
        side = [[random.lognormal(size=2)]] * 3
        assert ts.median_interval(side) == (ts.quantile(ts.pool_samples(side), 0.5),) * 2


def test_processes_may_have_unequal_numbers_of_blocks():
    side = [[np.ones(30), np.ones(10)], [np.full(20, 2.0)], [np.full(30, 3.0)]]
    low, high = ts.median_interval(side)
    assert 1.0 <= low < np.median(ts.pool_samples(side)) < high <= 3.0


@pytest.mark.lengthy
@pytest.mark.parametrize(("q", "true"), [(0.5, 1.0), (0.9, 1 + scipy.stats.norm.ppf(0.9) * np.hypot(0.05, 0.03))])
def test_the_interval_of_a_quantile_counts_the_scatter_of_blocks_once(q, true, monkeypatch):
    """Where blocks scatter and processes do not, drawing blocks again within the processes held the truth in 99 of 100 sessions."""
    monkeypatch.setattr(ts, "DRAWS", 600)
    random, found = np.random.default_rng(6), []
    for _ in range(250):
        side = [[random.normal(base, 0.03, 20) for base in random.normal(1, 0.05, 3)] for _ in range(7)]
        found.append((ts.quantile(ts.pool_samples(side), q), *ts.quantile_interval(side, q)))
    points, low, high = np.array(found).T
    assert 0.91 <= np.mean((low <= true) & (true <= high)) <= 0.98, "95 %, give or take three standard errors"
    assert 0.8 < np.median(high - low) / np.subtract(*np.quantile(points, [0.975, 0.025])) < 1.3


def test_pairing_survives_a_drift_that_ruins_unpaired_medians():
    random = np.random.default_rng(4)
    drift = np.linspace(1.0, 2.0, 6)
    variant = [[d * 0.5 * random.normal(1, 0.01, 50)] for d in drift]
    reference = [[d * random.normal(1, 0.01, 50)] for d in drift]
    low, high = ts.ratio_interval(variant, reference)
    assert ts.median_ratio(variant, reference) == pytest.approx(0.5, rel=0.01) and high - low < 0.02
    low, high = ts.median_interval(variant)
    assert high - low > 0.3, "the absolute time really is that uncertain"


def test_intervals_repeat_themselves():
    side = correlated(np.random.default_rng(5), 5)
    assert ts.ratio_interval(side, side[::-1]) == ts.ratio_interval(side, side[::-1])
    assert ts.median_interval(side) == ts.median_interval(side)


def test_half_width():
    assert ts.relative_half_width((0.9, 1.1), 1.0) == pytest.approx(0.1)
    assert ts.relative_half_width((0.45, 0.55), 0.5) == pytest.approx(0.1)
