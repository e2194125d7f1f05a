"""Differences where few cases count: AUROC, recall, shares. Coverage for more cases: python -m benchmarks.rare_cases."""

from itertools import product

import numpy as np
import pytest
from sklearn import metrics

from benchmarks.rare_cases import lowest_coverage, outcomes
from edgewise.artifacts.records import Quality, VariantSummary
from edgewise.config.schema import Budget
from edgewise.errors import VariantFailed
from edgewise.plugins import Predictions
from edgewise.report import choice, rows, verdicts
from edgewise.stats import claims, paired, ranking, roc_difference
from edgewise.stats.ranking import Ranking
from edgewise.stats.roc_difference import auroc_interval, compare_auroc, compare_recall
from edgewise.tasks import classification, defect_detection
from tests.support.rare_scores import AREAS, draw_scores

POSITIVE = np.arange(66) < 11


def example(change: str = "noisier", positives: int = 12, area: float = 0.8):
    return draw_scores(np.random.default_rng(1), positives, 40, area, change).scores


def fallen(count: int) -> tuple[np.ndarray, np.ndarray]:
    """11 positives above 55 negatives; in the second model `count` of them fall below some negatives."""
    before = np.where(POSITIVE, 100.0, 0.0) + np.arange(66)
    after = before.copy()
    after[:count] = 50.5  # the negatives have 11 to 65
    return before, after


@pytest.mark.parametrize("change", ["noisier", "steps"])
def test_areas_are_those_of_scikit_learn_and_variances_those_of_leaving_each_sample_out(change):
    """The two-sample jackknife gives DeLong's variance (Arvesen 1969)."""
    before, after, positive = example(change)
    areas = [metrics.roc_auc_score(positive, scores) for scores in (before, after)]
    assert compare_auroc(before, after, positive).delta == pytest.approx(areas[1] - areas[0])
    placed = [roc_difference._place(scores[positive], scores[~positive]) for scores in (before, after)]
    found = placed[1].minus(placed[0]).variances
    for kind, variance in zip((positive, ~positive), found, strict=True):
        others = [np.arange(len(positive)) != i for i in np.flatnonzero(kind)]
        left = [metrics.roc_auc_score(positive[o], after[o]) - metrics.roc_auc_score(positive[o], before[o]) for o in others]
        assert variance == pytest.approx((len(left) - 1) / len(left) * np.sum((left - np.mean(left)) ** 2))


@pytest.mark.parametrize("positives", [5, 11, 30, 100])
def test_intervals_of_few_positives_hold_the_truth(positives):
    """At least 93 of 100 over all areas and changes; the percentile bootstrap falls to 74."""
    rng, held = np.random.default_rng(positives), []
    for area, change in product(AREAS, ("int8", "noisier", "worse", "steps")):
        for _ in range(15):
            drawn = draw_scores(rng, positives, 100, area, change)
            low, high = compare_auroc(*drawn.scores).delta_ci95
            held.append(low <= drawn.truth <= high)
    assert np.mean(held) >= 0.93


@pytest.mark.parametrize("positives", [11, 100])
def test_a_loss_as_large_as_the_margin_is_called_equivalent_in_at_most_5_of_100_test_sets(positives):
    rng, said = np.random.default_rng(positives), []
    for area in AREAS:
        for _ in range(40):
            drawn = draw_scores(rng, positives, 100, area, "worse")
            said.append(claims.claim(compare_auroc(*drawn.scores).delta_ci95, abs(drawn.truth)) == claims.EQUIVALENT)
    assert np.mean(said) <= 0.05


def test_the_same_order_of_other_scores_has_exact_bounds():
    before, _ = fallen(0)
    found = compare_auroc(before, 2 * before + 1, POSITIVE)
    bound = 1 - 0.025 ** (1 / 11)
    assert found.delta == 0 and found.delta_ci95 == pytest.approx((-bound, bound))
    assert compare_recall(before, 2 * before + 1, POSITIVE, 0.05).delta_ci95 == pytest.approx((-bound, bound))


def test_where_few_fell_and_none_rose_a_rise_is_not_ruled_out():
    low, high = compare_auroc(*fallen(1), POSITIVE).delta_ci95
    assert -0.2 < low < -0.02 and high == pytest.approx(1 - 0.025 ** (1 / 11))


def test_where_many_fell_and_none_rose_the_fall_is_shown():
    assert compare_auroc(*fallen(9), POSITIVE).delta_ci95[1] < 0


@pytest.mark.parametrize("positives", [1, 2])
def test_one_or_two_positives_show_nothing(positives):
    low, high = compare_auroc(*example(positives=positives)).delta_ci95
    assert -1 <= low < -0.3 and 0.3 < high <= 1


def test_infinite_and_constant_scores_are_scores():
    before, after, positive = example()
    sure = np.where(after > 1, np.inf, np.where(after < -1, -np.inf, after))
    assert compare_auroc(before, sure, positive).delta == pytest.approx(
        metrics.roc_auc_score(positive, np.clip(sure, -9, 9)) - metrics.roc_auc_score(positive, before)
    )
    assert compare_auroc(before, np.zeros(len(positive)), positive).delta == pytest.approx(0.5 - metrics.roc_auc_score(positive, before))
    with pytest.raises(VariantFailed):
        compare_auroc(before, np.full(len(positive), np.nan), positive)


def test_parts_of_the_pairs_are_the_whole(monkeypatch):
    whole = compare_auroc(*example()).delta_ci95
    monkeypatch.setattr(roc_difference, "MAX_CELLS", 50)
    assert compare_auroc(*example()).delta_ci95 == pytest.approx(whole)


def test_the_interval_of_a_perfect_area_says_what_so_few_cannot_rule_out():
    before, _ = fallen(0)
    assert auroc_interval(before, POSITIVE) == pytest.approx((0.025 ** (1 / 11), 1.0))
    low, high = auroc_interval(example()[0], example()[2])
    assert 0.5 < low < 0.8 < high <= 1


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_recalled_positives_are_those_of_the_ranking(share):
    for change in ("noisier", "steps"):
        _, scores, positive = example(change)
        expected = ranking.recall_at_fpr(Ranking.of(scores, positive), np.ones((1, len(positive)), np.float32), share)[0]
        assert roc_difference.find_recalled(scores, positive, share).mean() == pytest.approx(expected)


def judge(change, task=defect_detection) -> VariantSummary:
    """The row of a variant whose logits are `change` of the reference's, on 11 defects and 55 normal samples."""
    logits = np.column_stack([fallen(0)[0], np.full(66, 60.0)]).astype(np.float32)
    spec = {"normal": 1, "threshold": 0.0}
    reference, variant = (Predictions({"logits": each}, 1 - POSITIVE, ("crack", "good"), spec) for each in (logits, change(logits)))
    row = VariantSummary("onnx", "fp16", "ok", quality=Quality(samples=66))
    return rows.add_comparison(row, variant, reference, "onnx-fp16", rows.Judge(task, task.Settings()))


def limit(row: VariantSummary, points: float, task=defect_detection) -> choice.Finding:
    (found,) = choice.check_limits(row, Budget("test", accuracy_drop_points=points), task.PRIMARY_METRIC, 1.0)
    return found


@pytest.mark.parametrize("task", [classification, defect_detection])
def test_the_same_outputs_differ_by_nothing_and_meet_every_budget(task):
    row = judge(np.copy, task)
    assert row.quality.delta == 0 and row.quality.delta_ci95 == (0.0, 0.0) and row.quality.samples_needed is None
    assert verdicts.score_verdict(row, task.PRIMARY_METRIC) == "identical"
    assert limit(row, 0.0, task).met


@pytest.mark.parametrize("task", [classification, defect_detection])
def test_the_same_decisions_of_other_outputs_neither_meet_nor_miss_a_budget(task):
    row = judge(lambda logits: logits * np.float32(1.01), task)
    assert row.quality.delta == 0 and row.quality.delta_ci95[0] < -0.05
    found = limit(row, 2.0, task)
    assert not found.met and "not resolved" in found.text
    assert verdicts.score_verdict(row, task.PRIMARY_METRIC, 0.02) == "not resolved"


def test_a_variant_that_lost_one_of_eleven_is_not_preferred_to_one_that_lost_none():
    """The bootstrap gave [-3.3, 0.0] here, beside [-28.5, +28.5] for the variant that changed nothing."""

    def lose_one(logits):
        changed = logits.copy()
        changed[0, 0] = 50.5
        return changed

    row = judge(lose_one)
    assert -0.03 < row.quality.delta < -0.01 and not limit(row, 2.0).met
    assert verdicts.score_verdict(row, defect_detection.PRIMARY_METRIC, 0.02) == "not resolved"
    assert row.quality.scores["recall_at_threshold_delta"] == pytest.approx(-1 / 11)
    low, high = row.quality.scores["recall_at_threshold_delta_ci95"]
    assert low < -0.3 and high > 0.2


@pytest.mark.parametrize(("samples", "before"), [(5, 0.93), (11, 0.95), (30, 0.935)])
def test_intervals_of_shares_hold_the_truth_whatever_the_rates_of_flips(samples, before):
    every = outcomes(samples)
    was, now = (
        lowest_coverage(every, samples, np.array([way(g, lost, samples) for g, lost in every.tolist()]))
        for way in (paired.tango_interval, paired.share_interval)
    )
    assert was < before and now > 0.945
