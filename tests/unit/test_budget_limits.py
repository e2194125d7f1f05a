"""The limits of a budget beside size and median: the tail of latency, memory by experiment, energy, a drop in any score."""

import numpy as np
import pytest

from edgewise.artifacts.records import Energy, EnergyFigures, LimitedRun, VariantSummary
from edgewise.config.schema import Budget
from edgewise.measure.passes import net_interval_mj
from edgewise.plugins import PrimaryMetric
from edgewise.report import choice
from edgewise.stats.timing import median_interval, quantile_interval
from edgewise.tasks import classification, regression
from tests.support.records import varied
from tests.unit.test_report_judging import GOOD

ROW = varied(
    GOOD,
    latency_p90_ms=1.4,
    latency_p90_ci95_ms=(1.3, 1.6),
    fits_mb={"64": LimitedRun("oom"), "128": LimitedRun("ok"), "512": LimitedRun("ok")},
    energy=Energy("measured", EnergyFigures("rail_w", "board", 20.0, 2.0, 4.0, 40.0, net_mj=20.0, net_ci95_mj=(18.0, 22.0))),
)

SLOW_SENSOR = Energy("measured", EnergyFigures("rail_w", "board", 0.5, 2.0, 4.0, 4.0, net_mj=2.0))


def test_a_reader_knows_a_budget_by_its_option_or_by_the_limits_that_he_gave():
    assert Budget("camera_512mb", size_bytes=12_000_000).title == "the budget 'camera_512mb'"
    assert Budget("none", size_bytes=12_000_000, sqnr_db=25.0, prefer="size").title == "your limits (size_bytes, sqnr_db)"
    assert Budget("none").title == "the budget 'none'"


def finding(
    row: VariantSummary, metric: PrimaryMetric | None = classification.PRIMARY_METRIC, base: float = 0.954, **limit
) -> choice.Finding:
    (found,) = choice.check_limits(row, Budget("test", **limit), metric, base)
    return found


@pytest.mark.parametrize(
    ("limit", "met", "text"),
    [
        ({"latency_p90_ms": 1.7}, True, "latency p90 1.40 ms [1.30, 1.60], limit 1.7 ms"),
        ({"latency_p90_ms": 1.5}, False, "not resolved, needs about 19 visits like this one"),  # 0.05 from the middle
        ({"latency_p90_ms": 1.2}, False, "limit 1.2 ms"),
        ({"fits_mb": 128}, True, "runs in 128 MB"),
        ({"fits_mb": 300}, True, "runs in 128 MB, limit 300 MB"),
        ({"fits_mb": 64}, False, "does not run in 64 MB (oom)"),
        ({"fits_mb": 32}, False, "does not run in 64 MB (oom), limit 32 MB"),
        ({"fits_mb": 96}, False, "cannot tell, 64 MB oom, 128 MB ok"),
        ({"energy_net_mj": 25.0}, True, "energy 20.00 mJ [18.00, 22.00], limit 25 mJ"),
        ({"energy_net_mj": 21.0}, False, "not resolved, needs a longer bench.energy_s"),
        ({"energy_net_mj": 15.0}, False, "limit 15 mJ"),
    ],
)
def test_a_limit_counts_as_met_only_when_the_evidence_says_so(limit, met, text):
    found = finding(ROW, **limit)
    assert found.met is met and text in found.text
    assert [word in found.text for word in ("cannot tell", "not resolved")] == [word in text for word in ("cannot tell", "not resolved")]


@pytest.mark.parametrize(
    ("missing", "limit", "text"),
    [
        ({"latency_p90_ms": None}, {"latency_p90_ms": 9.0}, "640 samples are too few for it"),
        ({"latency_p90_ci95_ms": None}, {"latency_p90_ms": 9.0}, "gives no interval"),
        ({"fits_mb": None}, {"fits_mb": 64}, "no limit was tried: set bench.fits_mb=[64]"),
        ({"fits_mb": {"64": LimitedRun("not tested")}}, {"fits_mb": 64}, "cannot tell, 64 MB not tested"),
        ({"energy": Energy("no sensor on this device")}, {"energy_net_mj": 1.0}, "cannot tell, no sensor on this device"),
        ({"energy": SLOW_SENSOR}, {"energy_net_mj": 9.0}, "cannot tell, the sensor is too slow"),
    ],
)
def test_what_was_not_measured_meets_no_limit(missing, limit, text):
    found = finding(varied(ROW, **missing), **limit)
    assert not found.met and text in found.text


def test_a_drop_of_an_error_counts_in_per_cent_of_the_references_error():
    row = varied(ROW, score=0.55, score_delta=0.05, score_delta_ci95=(0.03, 0.07), score_resolvable=0.03)
    found = finding(row, regression.PRIMARY_METRIC, 0.5, accuracy_drop_points=20.0)
    assert found.met and "MAE drop 10.00 % [6.00, 14.00], limit 20 %" in found.text
    assert not finding(row, regression.PRIMARY_METRIC, 0.5, accuracy_drop_points=5.0).met
    assert "needs" in finding(row, regression.PRIMARY_METRIC, 0.5, accuracy_drop_points=12.0).text
    better = varied(row, score_delta=-0.05, score_delta_ci95=(-0.07, -0.03))
    assert finding(better, regression.PRIMARY_METRIC, 0.5, accuracy_drop_points=0.1).met


def test_a_task_that_judges_nothing_meets_no_limit_on_accuracy():
    found = finding(ROW, None, accuracy_drop_points=50.0)
    assert not found.met and "this task has no score" in found.text


def test_the_interval_of_a_quantile_holds_it_and_that_of_the_half_is_the_medians():
    rng = np.random.default_rng(0)
    truth, held = float(np.quantile(rng.gamma(4, 1, 200_000), 0.9)), 0
    for seed in range(40):
        side = [[np.random.default_rng([seed, process]).gamma(4, 1, 60)] for process in range(7)]
        low, high = quantile_interval(side, 0.9)
        held += low <= truth <= high
    assert held >= 36
    assert quantile_interval(side, 0.5) == median_interval(side)


def windows(net_w: float, noise_w: float, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    found = []
    for phase, watts in (("idle", 2.0), ("load", 2.0 + net_w)):
        values = (watts + rng.normal(0, noise_w, 200)).tolist()
        found.append({"phase": phase, "at_ns": [int(i * 1e8) for i in range(200)], "values": {"rail_w": values}, "runs": 100})
    return found


def test_the_interval_of_energy_holds_what_was_put_in():
    source = {"name": "rail_w", "counter": False, "wraps_at": None}
    held = [low <= 150.0 <= high for seed in range(60) for low, high in [net_interval_mj(source, *windows(1.5, 0.4, seed), 100.0)]]
    assert np.mean(held) >= 0.9
    slow = [{**window, "at_ns": window["at_ns"][:9], "values": {"rail_w": window["values"]["rail_w"][:9]}} for window in windows(1, 0, 0)]
    assert net_interval_mj(source, *slow, 100.0) is None


@pytest.mark.parametrize("limit", [{"latency_p50_ms": 0.0}, {"latency_p90_ms": 0.0}, {"energy_net_mj": 0.0}])
def test_a_limit_of_nothing_is_missed_or_open_whatever_was_measured(limit):
    """Also by a profile, or with a sensor, that gives no interval."""
    assert not finding(ROW, **limit).met
    found = finding(varied(ROW, latency_p50_ci95_ms=None, latency_p90_ci95_ms=None, energy=SLOW_SENSOR), **limit)
    assert found.unsure and "cannot tell" in found.text and found.excess > 0


def test_what_rounding_leaves_between_a_loss_and_its_limit_asks_for_no_samples():
    row = varied(GOOD, score_delta=-0.01 + 1e-15, score_delta_ci95=(-0.02, 0.0))
    assert "it lies on the limit" in finding(row, accuracy_drop_points=1.0).text
