"""What the report claims: verdicts, the Pareto set, the choice."""

from dataclasses import replace

import pytest

from edgewise.artifacts.records import VariantSummary
from edgewise.config.schema import Budget, Margins
from edgewise.report import choice, table, verdicts
from edgewise.tasks import regression
from edgewise.tasks.classification import PRIMARY_METRIC
from tests.support.records import made, varied

GOOD = made(
    "onnx",
    "int8-static",
    "ok",
    size_bytes=11_400_000,
    samples=540,
    score=0.95,
    score_delta=-0.004,
    score_delta_ci95=(-0.0146, 0.0054),
    score_resolvable=0.013,
    score_samples_needed=6335,
    latency_p50_ms=1.0,
    latency_p50_ci95_ms=(0.95, 1.08),
    latency_ratio_to_reference=0.31,
    latency_ratio_ci95=(0.30, 0.32),
    peak_rss_bytes=84_000_000,
    bench_samples=640,
    profile="quick",
)


@pytest.mark.parametrize(
    ("ratio", "aa", "verdict"),
    [
        ((0.90, 0.95), (0.98, 1.02), "faster"),
        ((1.05, 1.10), (0.98, 1.02), "slower"),
        ((0.97, 1.03), (0.98, 1.02), "not resolved"),
        ((0.95, 0.985), (0.98, 1.02), "not resolved"),  # excludes 1, but the device differs from itself by as much
        ((1.01, 1.08), (0.98, 1.02), "not resolved"),
        ((0.90, 0.97), (0.99, 1.05), "not resolved"),  # the A/A difference counts in both directions
        (None, (0.98, 1.02), "no claim"),
        ((0.90, 0.95), None, "no claim"),
    ],
)
def test_faster_is_claimed_only_beyond_one_and_beyond_the_devices_own_difference(ratio, aa, verdict):
    assert verdicts.latency_verdict(varied(GOOD, latency_ratio_ci95=ratio), aa) == verdict


@pytest.mark.parametrize(
    ("interval", "margin", "verdict"),
    [
        ((-0.02, -0.001), None, "worse"),
        ((0.001, 0.02), None, "better"),
        ((-0.0146, 0.0054), None, "not resolved"),
        ((-0.0146, 0.0054), 0.015, "equivalent"),
        ((-0.0146, 0.0054), 0.014, "not resolved"),
        ((0.0, 0.0), None, "identical"),
        (None, 0.015, None),
    ],
)
def test_a_score_is_judged_by_its_interval(interval, margin, verdict):
    assert verdicts.score_verdict(varied(GOOD, score_delta_ci95=interval), PRIMARY_METRIC, margin) == verdict


@pytest.mark.parametrize(
    ("latency", "score", "said"),
    [
        ("faster", "worse", "faster, accuracy worse"),
        ("equivalent", "equivalent", "latency equivalent, accuracy equivalent"),
        ("not resolved", "not resolved", "latency not resolved"),  # what the score lacks stands below the table
        ("no claim", "identical", "no claim on latency, accuracy identical"),
        (None, None, ""),
    ],
)
def test_the_table_names_what_its_verdicts_are_about(latency, score, said):
    row = varied(GOOD, latency_verdict=latency, score_verdict=score)
    known = replace(row, latency=replace(row.latency, between_visits=True))
    assert table.format_verdict(known, PRIMARY_METRIC) == said


def test_more_of_an_error_is_worse():
    row = varied(GOOD, score_delta_ci95=(0.001, 0.02))
    assert verdicts.score_verdict(row, regression.PRIMARY_METRIC) == "worse"
    assert verdicts.score_verdict(row, regression.PRIMARY_METRIC, 0.03) == "equivalent"


@pytest.mark.parametrize(("metric", "margin"), [(PRIMARY_METRIC, 0.005), (regression.PRIMARY_METRIC, 0.5), (None, 0.5)])
def test_the_margin_of_a_share_is_given_in_points(metric, margin):
    assert verdicts.score_margin(metric, Margins(score=0.5)) == margin and verdicts.score_margin(metric, Margins()) is None


@pytest.mark.parametrize(
    ("delta", "needed", "margin", "said"),
    [
        (-0.004, 6335, None, "needs 6,335 samples"),
        (-0.004, 6335, 0.01, "needs 2,535 samples"),  # 540 * (0.013 / (0.010 - 0.004))^2: equivalence is nearer than a direction
        (-0.004, 6335, 0.004, "needs 6,335 samples"),
        (0.0, None, None, "no difference seen; 540 samples can show one of 1.3 points or more"),
        (0.0, None, 0.006, "needs 2,535 samples"),
    ],
)
def test_what_a_score_lacks_is_samples(delta, needed, margin, said):
    row = varied(GOOD, score_delta=delta, score_samples_needed=needed)
    assert verdicts.what_resolves_score(row, PRIMARY_METRIC, 0.95, margin) == said


def test_what_a_latency_lacks_is_visits():
    row = varied(GOOD, latency_ratio_ci95=(0.97, 1.01))
    assert verdicts.what_resolves_latency(row, (0.999, 1.001)) == "about 9 visits like this one"
    assert verdicts.what_resolves_latency(row, (0.999, 1.001), 0.05) == "about 2 visits like this one"
    assert verdicts.what_resolves_latency(varied(GOOD, latency_ratio_ci95=(1 / 1.02, 1.02)), (0.999, 1.001)) == "no difference seen"


def test_a_comparison_across_settings_is_warned_of():
    found = verdicts.find_warnings(varied(GOOD, threads=2, noise_grade="noisy", covered_share=0.0005), varied(GOOD, threads=1))
    assert len(found) == 3
    assert "covers 0.05 % of the weights" in found[0] and "noisy" in found[1] and "threads 2, the reference with 1" in found[2]


def test_what_the_kernels_of_this_machine_lose_is_warned_of():
    (warning,) = verdicts.find_warnings(varied(GOOD, sqnr_to_source_db=15.1, sqnr_as_written_db=47.7), GOOD)
    assert "reach SQNR 15 dB of the file's 48" in warning and "reduce_range: true" in warning
    assert verdicts.find_warnings(varied(GOOD, sqnr_to_source_db=31.0, sqnr_as_written_db=33.0), GOOD) == []


def test_the_pareto_set_is_what_nothing_else_beats():
    def row(accuracy, ratio, size, status="ok"):
        known = {"latency_ratio_to_reference": ratio, "latency_ratio_ci95": ratio and (0.99 * ratio, 1.01 * ratio)}
        return varied(GOOD, score=accuracy, size_bytes=size, status=status, **known)

    rows = {
        "accurate": row(0.96, 1.0, 45),
        "twin": row(0.96, 1.0, 45),  # equal points do not beat each other
        "fast": row(0.95, 0.2, 12),
        "small": row(0.90, 1.5, 6),
        "beaten": row(0.94, 0.3, 12),
        "failed": row(0.99, 0.1, 1, "failed"),
        "unmeasured": row(0.95, None, 12),
    }
    assert verdicts.pareto_front(rows, PRIMARY_METRIC) == ("accurate", "twin", "fast", "small")


@pytest.mark.parametrize(
    ("budget", "met", "text"),
    [
        ({"size_bytes": 12_000_000}, True, "size 11.4 MB, limit 12 MB"),
        ({"size_bytes": 11_000_000}, False, "size 11.4 MB, limit 11 MB"),
        ({"size_bytes": 11_399_000}, False, "size 11.400 MB, limit 11.399 MB"),
        ({"peak_rss_bytes": 84_000_000}, True, "peak memory"),
        ({"latency_p50_ms": 1.2}, True, "latency p50 1.00 ms [0.95, 1.08], limit 1.2 ms"),
        ({"latency_p50_ms": 0.9}, False, "limit 0.9 ms"),
        (
            {"latency_p50_ms": 1.05},
            False,
            "not resolved, needs about 8 visits like this one",
        ),  # (1.43 * 0.065 / 0.035)^2: with a power of 80 %
        ({"accuracy_drop_points": 1.5}, True, "accuracy drop 0.40 points [-0.54, 1.46]"),
        ({"accuracy_drop_points": 0.5}, False, "not resolved, needs"),
    ],
)
def test_a_limit_is_met_only_when_the_interval_says_so(budget, met, text):
    (finding,) = choice.check_limits(GOOD, Budget("test", **budget), PRIMARY_METRIC, 0.95)
    assert finding.met is met and text in finding.text
    assert ("not resolved" in finding.text) == ("not resolved" in text)


@pytest.mark.parametrize(
    ("missing", "budget", "text"),
    [
        (
            {"latency_p50_ms": None, "latency_reason": "not measured: no bench"},
            {"latency_p50_ms": 9},
            "cannot tell, not measured: no bench",
        ),
        ({"latency_p50_ci95_ms": None}, {"latency_p50_ms": 9}, "gives no interval: use bench.name=quick"),
        ({"memory": None}, {"peak_rss_bytes": 9}, "cannot tell, not measured"),
        ({"score_delta": None}, {"accuracy_drop_points": 1}, "cannot tell, the reference failed"),
    ],
)
def test_what_was_not_measured_meets_no_limit(missing, budget, text):
    (finding,) = choice.check_limits(varied(GOOD, **missing), Budget("test", **budget), PRIMARY_METRIC, 0.95)
    assert not finding.met and text in finding.text


LOST = {
    "detections": 615,
    "lost_detections_share": 0.12,
    "lost_detections_share_ci95": [0.09, 0.16],
    "lost_at_own_threshold_share": 0.02,
    "score_shift_median": -0.08,
    "threshold": 0.24,
}


def with_scores(**changes):
    return replace(GOOD, quality=replace(GOOD.quality, scores={**LOST, **changes}))


@pytest.mark.parametrize(
    ("scores", "limit", "met", "text"),
    [
        ({}, 0.2, True, "lost detections 12.00 % [9.00, 16.00], limit 20 %"),
        ({}, 0.15, False, "not resolved, needs 196 more samples"),  # 540 * (3.5 / 3)^2 - 540, rounded up
        ({}, 0.05, False, "limit 5 %"),
        ({"lost_detections_share": 0.0, "lost_detections_share_ci95": [0.0, 0.0]}, 0.0, True, "limit 0 %"),
        ({"lost_detections_share": 0.0, "lost_detections_share_ci95": [0.0, 0.01]}, 0.0, False, "not resolved"),
        ({"detections": 0, "lost_detections_share": None}, 0.05, False, "nothing to find"),
        ({"detections": None, "lost_detections_share": None}, 0.05, False, "cannot tell, the reference failed"),
    ],
)
def test_lost_detections_are_a_limit(scores, limit, met, text):
    (finding,) = choice.check_limits(with_scores(**scores), Budget("test", lost_detections_share=limit), PRIMARY_METRIC, 0.95)
    assert finding.met is met and text in finding.text
    assert ("cannot tell" in finding.text) == ("cannot tell" in text or "nothing to find" in text)
    assert ("not resolved" in finding.text) == ("not resolved" in text)


def test_a_limit_of_lost_detections_needs_a_task_that_detects():
    (finding,) = choice.check_limits(GOOD, Budget("test", lost_detections_share=0.1), PRIMARY_METRIC, 0.95)
    assert not finding.met and "set lost_detections_share to none" in finding.text


def test_many_lost_detections_are_warned_of():
    (said,) = verdicts.find_warnings(with_scores(), GOOD)
    assert said.startswith("12 % of the reference's 615 detections are lost at its threshold, 2 % at this variant's own (0.24)")
    assert "-0.08" in said
    assert not verdicts.find_warnings(with_scores(lost_detections_share_ci95=[0.04, 0.2]), GOOD)


ROWS = {
    "fast": varied(GOOD, latency_ratio_to_reference=0.2, latency_ratio_ci95=(0.1, 0.28), size_bytes=20_000_000, peak_rss_bytes=90_000_000),
    "small": varied(GOOD, latency_ratio_to_reference=0.3, latency_ratio_ci95=(0.29, 0.31), size_bytes=5_000_000, peak_rss_bytes=95_000_000),
    "lean": varied(GOOD, latency_ratio_to_reference=0.4, latency_ratio_ci95=(0.38, 0.42), size_bytes=9_000_000, peak_rss_bytes=50_000_000),
    "broken": varied(GOOD, status="failed", reason="covers nothing"),
}


@pytest.mark.parametrize(("prefer", "order"), [("latency", "fast small lean"), ("size", "small lean fast"), ("memory", "lean fast small")])
def test_the_best_in_what_the_user_prefers_is_chosen(prefer, order):
    found = choice.choose(ROWS, Budget("test", peak_rss_bytes=100_000_000, prefer=prefer), PRIMARY_METRIC, 0.95)
    assert [found.chosen, *found.runners_up] == order.split()
    assert found.losers == {"broken": ("failed: covers nothing",)}


def test_variants_are_ranked_by_the_least_favourable_end_of_their_interval():
    """0.06 as the point of a wide interval is no better than a sure 0.2."""
    rows = {
        "stray": varied(GOOD, latency_ratio_to_reference=0.06, latency_ratio_ci95=(0.05, 0.9)),
        "sure": varied(GOOD, latency_ratio_to_reference=0.2, latency_ratio_ci95=(0.19, 0.21)),
        "near": varied(GOOD, latency_ratio_to_reference=0.22, latency_ratio_ci95=(0.21, 0.23)),
        "apart": varied(GOOD, latency_ratio_to_reference=0.25, latency_ratio_ci95=(0.24, 0.26)),
        "bare": varied(GOOD, latency_ratio_to_reference=0.215, latency_ratio_ci95=None),
        "unmeasured": varied(GOOD, latency_ratio_to_reference=None, latency_ratio_ci95=None),
    }
    assert sorted(rows, key=lambda name: verdicts.worst_ratio(rows[name])) == ["sure", "near", "apart", "stray", "bare", "unmeasured"]
    assert verdicts.fastest_group(rows) == ["sure", "near", "stray"], "cannot be told from the best: their intervals overlap with its own"
    assert verdicts.fastest_group({"unmeasured": rows["unmeasured"]}) == []


def test_the_reference_is_told_apart_by_its_difference_to_itself():
    base = varied(GOOD, latency_ratio_ci95=(0.99, 1.05), latency_verdict="reference")
    assert not verdicts.is_faster(varied(GOOD, latency_ratio_ci95=(0.90, 0.97)), base)
    assert verdicts.is_faster(varied(GOOD, latency_ratio_ci95=(0.90, 0.95)), base)


def plain(ratio=(0.99, 1.01), size=10, score=0.95, delta=(-0.01, 0.01)):
    middle = None if ratio is None else (ratio[0] + ratio[1]) / 2
    known = {"latency_ratio_to_reference": middle, "latency_ratio_ci95": ratio}
    return varied(GOOD, size_bytes=size, score=score, score_delta_ci95=delta, **known)


def front(margins=verdicts.NO_MARGINS, **rows):
    return verdicts.pareto_front(rows, PRIMARY_METRIC, margins)


def test_the_front_holds_whatever_is_not_shown_to_be_beaten():
    assert front(a=plain((0.99, 1.01)), b=plain((1.0, 1.02))) == ("a", "b"), "the same size, and no ratio is shown to be less"
    assert front(a=plain((0.97, 0.98)), b=plain((1.0, 1.02))) == ("a",)
    assert front(a=plain(score=0.951), b=plain(score=0.95)) == ("a", "b"), "one more right answer is no claim"
    assert front(a=plain(size=9), b=plain(score=0.951)) == ("a", "b"), "the second answers more of them right, if by chance"
    assert front(Margins(score=3.0), a=plain(size=9), b=plain(score=0.951)) == ("a",), "within the margin that does not matter"
    assert front(Margins(latency=0.05), a=plain((1.0, 1.02), 9), b=plain((0.99, 1.01))) == ("a",)


def test_a_profile_without_intervals_ranks_nothing_by_latency():
    rows = {"a": varied(plain(None, 9), latency_ratio_to_reference=0.9), "b": varied(plain(None), latency_ratio_to_reference=0.3)}
    assert front(**rows) == ("a",), "by size and score alone"
    assert not verdicts.makes_claims(rows) and verdicts.makes_claims({"a": plain(None)}) and verdicts.makes_claims({"a": plain()})
    assert verdicts.fastest_group(rows) == []
    found = choice.choose(rows, Budget("test", size_bytes=20), PRIMARY_METRIC, 0.95)
    assert found.chosen == "a" and "this profile claims nothing about latency" in found.reason


def test_a_choice_among_equals_says_that_it_cannot_tell_them_apart():
    tied = {**ROWS, "small": varied(ROWS["small"], latency_ratio_ci95=(0.27, 0.31))}
    found = choice.choose(tied, Budget("test", peak_rss_bytes=100_000_000), PRIMARY_METRIC, 0.95)
    assert found.chosen == "fast" and found.reason.endswith("of 3, not shown to be faster than small: their intervals overlap")
    assert choice.choose(ROWS, Budget("test", peak_rss_bytes=100_000_000), PRIMARY_METRIC, 0.95).reason.endswith("the best of 3 in latency")


@pytest.mark.parametrize(
    ("change", "said", "verdict"),
    [
        ({"profile": "standard"}, "measured with profile standard, the reference with quick: compare the ratio only", "faster"),
        ({"interleave": "processes"}, "measured with interleave processes, the reference with blocks: compare the ratio only", "faster"),
        ({"threads": 4}, "measured with threads 4", "faster"),
        ({"governor": "powersave"}, "measured with governor powersave, the reference with performance: compare the ratio", "faster"),
        (
            {"device_fingerprint": "b"},
            "measured with device_fingerprint b, the reference with a: this is another machine",
            "no claim",
        ),
        (
            {"emulated": True},
            "measured with emulated True, the reference with False: this is another machine",
            "no claim",
        ),
    ],
)
def test_two_measurements_that_differ_in_their_conditions_carry_a_warning(change, said, verdict):
    known = {"threads": 1, "interleave": "blocks", "governor": "performance", "device_fingerprint": "a", "emulated": False}
    known["noise_grade"] = "clean"
    base = varied(GOOD, latency_ratio_to_reference=1.0, latency_ratio_ci95=(0.99, 1.01), **known)
    rows = {"base": base, "same": varied(GOOD, **known), "other": varied(GOOD, **{**known, **change})}
    judged = verdicts.add_verdicts(rows, "base", PRIMARY_METRIC)
    assert judged["same"].warnings == () and judged["same"].latency.verdict == "faster"
    assert [text[: len(said)] for text in judged["other"].warnings] == [said] and judged["other"].latency.verdict == verdict


def test_without_a_measured_reference_the_others_are_still_compared_with_each_other():
    rows = {"base": VariantSummary("onnx", "fp32", "failed"), "one": varied(GOOD, threads=1), "two": varied(GOOD, threads=2)}
    judged = verdicts.add_verdicts(rows, "base", PRIMARY_METRIC)
    assert not judged["one"].warnings and "threads 2, one with 1" in judged["two"].warnings[0]


def test_without_limits_nothing_is_chosen():
    found = choice.choose(ROWS, Budget("none"), PRIMARY_METRIC, 0.95)
    assert found.chosen is None and found.reason.endswith(
        "sets no limit; give one, for example: `dvc exp run -S ++budget.accuracy_drop_points=1`"
    )
    assert choice.choose(ROWS, Budget("none"), None, None).reason.endswith("-S ++budget.sqnr_db=25`"), "there is no score to limit"


def test_where_the_reference_is_chosen_the_nearest_other_variant_is_named():
    base = varied(plain(size=10), latency_verdict="reference")
    rows = {"base": base, "big": plain((1.1, 1.2), 40), "near": plain((0.5, 0.6), 11)}
    alone = choice.choose(rows, Budget("test", size_bytes=10), PRIMARY_METRIC, 0.95)
    assert (alone.chosen, alone.nearest_miss, alone.runners_up) == ("base", "near", ())
    assert alone.reason == (
        "the reference itself, so nothing is gained: no other variant is shown to keep every limit; nearest: near (size 0.000011 MB,"
        " limit 1e-05 MB)"
    )
    rows["slow"] = plain((1.3, 1.4), 10)
    beside = choice.choose(rows, Budget("test", size_bytes=10), PRIMARY_METRIC, 0.95)
    assert beside.runners_up == ("slow",) and "so nothing is gained: shown to keep every limit; the best of 2 in latency" in beside.reason
    assert "nearest of the rest: near (size" in beside.reason
    better = choice.choose({**rows, "fast": plain((0.5, 0.6), 10)}, Budget("test", size_bytes=10), PRIMARY_METRIC, 0.95)
    assert better.chosen == "fast" and better.nearest_miss is None and "nothing is gained" not in better.reason


def test_where_nothing_fits_the_nearest_miss_is_named():
    found = choice.choose(ROWS, Budget("test", size_bytes=4_000_000, peak_rss_bytes=60_000_000), PRIMARY_METRIC, 0.95)
    assert found.chosen is None and found.nearest_miss == "lean"  # one limit missed; the others miss two
    assert "size 9.0 MB, limit 4 MB" in found.reason
    assert len(found.losers["fast"]) == 2
