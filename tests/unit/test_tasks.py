"""What each task makes of answers: against scikit-learn, and against what the numbers must be."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from edgewise.agent import answers
from edgewise.artifacts import flat_metrics
from edgewise.config.settings import build
from edgewise.errors import ConfigError, VariantFailed
from edgewise.plugins import Predictions, PrimaryMetric
from edgewise.stats import paired, ranking
from edgewise.stats.ranking import Ranking
from edgewise.tasks import classification, defect_detection, multi_label, none, regression

TASKS = (classification, defect_detection, multi_label, none, regression)
LABELS = ("crack", "good", "hole")
NORMAL = 1


def parts(samples: int = 900, shift: float = 1.5, seed: int = 0, noise: float = 0.0) -> Predictions:
    """Logits of three kinds, one of them normal in four samples of five; noise: of another variant of the same model."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(3, samples, p=[0.1, 0.8, 0.1])
    logits = rng.normal(0, 1, (samples, 3)) + shift * np.eye(3)[targets]
    logits += noise * np.random.default_rng(seed + 1).normal(0, 1, logits.shape)
    return Predictions({"logits": logits.astype(np.float32)}, targets, LABELS, {"normal": NORMAL})


def tags(samples: int = 400, seed: int = 0, noise: float = 0.0) -> Predictions:
    rng = np.random.default_rng(seed)
    true = (rng.random((samples, 4)) < (0.5, 0.3, 0.1, 0.05)).astype(np.float32)
    logits = 2 * true - 1 + rng.normal(0, 1.2, true.shape) + noise * np.random.default_rng(9).normal(size=true.shape)
    return Predictions({"logits": logits.astype(np.float32)}, true, ("a", "b", "c", "d"))


def numbers(samples: int = 300, error: float = 0.1, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    true = rng.normal(5, 2, (samples, 2)).astype(np.float32)
    return Predictions({"logits": (true + rng.normal(0, error, true.shape)).astype(np.float32)}, true, ("width", "height"))


CASES = [
    (classification, parts(), parts(noise=0.3)),
    (defect_detection, parts(), parts(noise=0.3)),
    (multi_label, tags(), tags(noise=0.3)),
    (regression, numbers(), numbers(error=0.12)),
    (none, numbers(), numbers(error=0.12)),
]


def judged(task, test: Predictions):
    settings = task.Settings()
    found = task.judge(settings, {"validation": test, "test": test})
    return found, Predictions({"logits": test.outputs}, test.targets, test.labels, {**test.spec, **found.decision})


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_a_task_is_the_protocol(task):
    from edgewise.plugins import Task

    assert {name for name in Task.__annotations__ if not hasattr(task, name)} == set()
    for name in ("judge", "compare", "decide"):
        wanted = list(inspect.signature(getattr(Task, name)).parameters)[1:]
        assert list(inspect.signature(getattr(task, name)).parameters) == wanted
    assert task.SPLITS[-1] == "test" and (task.PRIMARY_METRIC is None or isinstance(task.PRIMARY_METRIC, PrimaryMetric))


@pytest.mark.parametrize(("task", "reference", "variant"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_task_gives_what_it_declares_and_answers_as_a_device_does(task, reference, variant):
    found, before = judged(task, reference)
    _, after = judged(task, variant)
    compared = task.compare(task.Settings(), before, after)
    metric = {task.PRIMARY_METRIC.name} if task.PRIMARY_METRIC else set()
    given = {*found.scores, *(compared.scores if compared else ())}
    assert given == {*task.SCORES, *metric}
    for name in metric & found.scores.keys():  # what is judged alone has an interval of its own, for comparisons with other runs
        low, high = found.scores[f"{name}_ci95"]
        assert low <= found.scores[name] <= high and low < high
    said = answers.make_answers(after.outputs, after.spec, after.labels)
    decided = task.decide(after)
    assert len(said) == len(after.targets)
    if "label" in said[0] and task is classification:
        assert tuple(each["label"] for each in said) == decided.decided
    if "defect" in said[0]:
        assert [each["defect"] for each in said] == [text == "defect" for text in decided.decided]
    if "labels" in said[0]:
        assert tuple(", ".join(each["labels"]) or "(nothing)" for each in said) == decided.decided


def test_scores_of_a_detector_are_those_of_scikit_learn():
    test = parts()
    test = Predictions({"logits": np.round(test.outputs, 1)}, test.targets, test.labels, test.spec)  # ties, as int8 models have
    scores, defect = answers.log_odds_against_normal(test.outputs, test.spec), test.targets != NORMAL
    found = judged(defect_detection, test)[0].scores
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(defect, scores))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(defect, scores))
    false_positives, recall, _ = metrics.roc_curve(defect, scores, drop_intermediate=False)
    for share in (0.01, 0.05):
        assert found[f"recall_at_fpr_{100 * share:g}pct"] == pytest.approx(recall[false_positives <= share].max())
    for name in ranking.SCORE_NAMES:
        low, high = found[f"{name}_ci95"]
        assert low <= found[name] <= high and high - low > 0.01


def test_weighted_ranking_is_the_ranking_of_repeated_samples():
    rng = np.random.default_rng(3)
    scores, positive, counts = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4, rng.integers(0, 4, 60)
    weights = counts[None].astype(np.float32)
    again, truth = scores.repeat(counts), positive.repeat(counts)
    assert ranking.auroc(Ranking.of(scores, positive), weights)[0] == pytest.approx(metrics.roc_auc_score(truth, again))
    expected = metrics.average_precision_score(truth, again)
    assert ranking.average_precision(Ranking.of(scores, positive), weights)[0] == pytest.approx(expected)


@pytest.mark.parametrize("high", [(np.inf, 1e30), (-np.inf, -1e30), (np.float32(3e38), 3e38)])
def test_equal_infinite_scores_are_ties(high):
    """scikit-learn takes no infinities: the oracle is what it makes of finite scores in the same order."""
    rng = np.random.default_rng(4)
    given, finite = high
    positive, extreme = rng.random(80) < 0.4, rng.random(80) < 0.5
    plain = rng.integers(0, 5, 80).astype(float)
    ranked = Ranking.of(np.where(extreme, given, plain), positive)
    weights, expected = np.ones((1, 80), np.float32), np.where(extreme, finite, plain)
    assert ranking.auroc(ranked, weights)[0] == pytest.approx(metrics.roc_auc_score(positive, expected))
    assert ranking.average_precision(ranked, weights)[0] == pytest.approx(metrics.average_precision_score(positive, expected))


@pytest.mark.parametrize("scores", [[np.inf, np.inf], [-np.inf, -np.inf], [0.0, 0.0], [0.0, -0.0]])
def test_scores_that_are_all_the_same_rank_nothing(scores):
    assert ranking.auroc(Ranking.of(np.array(scores), np.array([True, False])), np.ones((1, 2), np.float32))[0] == 0.5


def test_scores_that_are_no_numbers_are_refused_as_scikit_learn_refuses_them():
    scores, positive = np.array([0.1, np.nan, 0.3, np.nan]), np.array([True, False, False, True])
    with pytest.raises(ValueError, match="NaN"):
        metrics.roc_auc_score(positive, scores)
    with pytest.raises(VariantFailed, match="2 of 4 scores are NaN"):
        Ranking.of(scores, positive)
    with pytest.raises(VariantFailed, match="2 of 4 scores are NaN"):
        ranking.choose_threshold(scores, positive, 0.05)


@pytest.mark.parametrize(
    ("scores", "positive", "rejected"),
    [
        ([1e308, 1e308, np.inf], [False, False, True], [np.inf]),
        ([1.0, np.nextafter(1.0, 2.0), 0.0], [False, True, False], [np.nextafter(1.0, 2.0)]),
        ([np.nextafter(1.0, 2.0), np.nextafter(np.nextafter(1.0, 2.0), 2.0)], [False, True], [np.nextafter(np.nextafter(1.0, 2.0), 2.0)]),
        ([np.inf, 0.0, 1.0], [True, False, False], [np.inf]),
        ([-np.inf, -np.inf, 2.0], [False, False, True], [2.0]),
    ],
)
def test_a_threshold_between_scores_is_a_number_however_near_or_far_they_are(scores, positive, rejected):
    scores, positive = np.array(scores), np.array(positive)
    found = ranking.choose_threshold(scores, positive, 0.0)
    assert scores[scores > found].tolist() == rejected and np.isfinite(found)


def test_no_threshold_lies_above_a_normal_sample_whose_score_is_infinite():
    with pytest.raises(VariantFailed, match="infinite score"):
        ranking.choose_threshold(np.array([np.inf, np.inf, 0.0]), np.array([True, False, False]), 0.0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5])
def test_the_threshold_rejects_no_more_normal_samples_than_allowed_and_as_many_as_it_can(share):
    test = parts(400)
    scores, defect = answers.log_odds_against_normal(test.outputs, test.spec), test.targets != NORMAL
    threshold = ranking.choose_threshold(scores, defect, share)
    kept = np.sort(scores[~defect & (scores < threshold)])
    assert np.mean(scores[~defect] > threshold) <= share
    assert np.mean(scores[~defect] >= kept[-1]) > share  # one more would be too many


def test_the_threshold_comes_from_validation_alone():
    held, test = parts(500, seed=5), parts(500, seed=6)
    found = defect_detection.judge(defect_detection.Settings(0.1), {"validation": held, "test": test})
    assert found.decision["threshold"] == ranking.choose_threshold(
        answers.log_odds_against_normal(held.outputs, held.spec), held.targets != NORMAL, 0.1
    )
    rejected = answers.log_odds_against_normal(test.outputs, test.spec) > found.decision["threshold"]
    assert found.scores["recall_at_threshold"] == pytest.approx(np.mean(rejected[test.targets != NORMAL]))
    hits, total = int(rejected[test.targets == NORMAL].sum()), int((test.targets == NORMAL).sum())
    assert found.scores["false_positive_rate_at_threshold_ci95"] == pytest.approx([*stats.binomtest(hits, total).proportion_ci()], abs=1e-9)


@pytest.mark.parametrize(("hits", "total"), [(0, 20), (20, 20), (3, 700), (690, 700)])
def test_the_exact_interval_is_that_of_scipy(hits, total):
    assert paired.exact_interval(hits, total) == pytest.approx([*stats.binomtest(hits, total).proportion_ci()], abs=1e-9)


def test_a_softmax_gives_the_same_detector_as_its_logits():
    test = parts()
    powers = np.exp(test.outputs)
    soft = Predictions({"logits": powers / powers.sum(1, keepdims=True)}, test.targets, LABELS, {**test.spec, "meaning": "probabilities"})
    assert answers.log_odds_against_normal(soft.outputs, soft.spec) == pytest.approx(
        answers.log_odds_against_normal(test.outputs, test.spec), abs=1e-4
    )


@pytest.mark.lengthy
def test_the_interval_of_an_auroc_difference_holds_the_truth_nineteen_times_in_twenty():
    def pair(seed: int, samples: int) -> list[Predictions]:
        made = [parts(samples, 1.0, seed, noise) for noise in (0.0, 0.8)]
        return [replace(each, spec={**each.spec, "threshold": 0.0}) for each in made]

    before, after = (
        metrics.roc_auc_score(each.targets != NORMAL, answers.log_odds_against_normal(each.outputs, each.spec))
        for each in pair(1000, 200_000)
    )
    found = [defect_detection.compare(defect_detection.Settings(), *pair(seed, 200)).delta_ci95 for seed in range(40)]
    assert 0.85 <= np.mean([low <= after - before <= high for low, high in found]) <= 1.0


def test_equal_answers_leave_open_what_so_few_samples_cannot_tell():
    _, same = judged(defect_detection, parts(300))
    found = defect_detection.compare(defect_detection.Settings(), same, same)
    assert found.delta == 0 and found.needed is None and found.scores["flips_gained"] == 0
    least = int((same.targets != NORMAL).sum())
    assert found.delta_ci95[1] == pytest.approx(stats.binomtest(0, least).proportion_ci().high)


def test_scores_of_labels_are_those_of_scikit_learn():
    test = tags()
    said, found = test.outputs >= 0, judged(multi_label, test)[0].scores
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(test.targets, said, average="macro"), rel=1e-5)
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(test.targets, said, average="micro"))
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(test.targets, said))
    assert found["macro_f1_ci95"][0] < found["macro_f1"] < found["macro_f1_ci95"][1]


def test_errors_are_those_of_scikit_learn_and_paired_by_sample():
    before, after = numbers(), numbers(error=0.2)
    found = judged(regression, after)[0].scores
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(after.targets, after.outputs), rel=1e-5)
    assert found["r2"] == pytest.approx(metrics.r2_score(after.targets, after.outputs), rel=1e-5)
    compared = regression.compare(regression.Settings(), before, after)
    differences = (np.abs(after.outputs - after.targets) - np.abs(before.outputs - before.targets)).mean(axis=1, dtype=np.float64)
    expected = stats.ttest_1samp(differences, 0).confidence_interval()
    assert compared.delta_ci95 == pytest.approx([expected.low, expected.high], rel=0.01)
    assert compared.delta > 0 and compared.resolved


def test_the_former_setting_fails_with_the_new_name():
    with pytest.raises(ConfigError, match=r"task\.false_alarms: .*max_false_positive_rate"):
        build(defect_detection.Settings, {"false_alarms": 0.1}, "task")


def test_the_former_names_of_scores_lead_to_names_of_today():
    names = flat_metrics.known_names(defect_detection.PRIMARY_METRIC, defect_detection.SCORES)
    assert not names & flat_metrics.RENAMED.keys() and set(flat_metrics.RENAMED.values()) <= names
