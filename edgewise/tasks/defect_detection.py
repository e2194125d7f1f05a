"""Defects among normal samples: how well the score separates them (AUROC), and the errors at a threshold.

The score is the log odds of the normal class against all others, so that any number of types of defects is possible. The threshold is
chosen on the validation split, for each variant on its own outputs, and recorded in its manifest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.agent.answers import log_odds_against_normal
from edgewise.config.settings import option
from edgewise.errors import DataError
from edgewise.plugins import Comparison, Decisions, Predictions, PrimaryMetric, Scores
from edgewise.stats import paired, ranking
from edgewise.stats.ranking import Ranking
from edgewise.stats.resampling import bootstrap, percentile_interval
from edgewise.stats.roc_difference import auroc_interval, compare_auroc, compare_recall, find_recalled
from edgewise.tasks.predictions import keep_scores, require_split

DEFECT = "defect"
TARGETS = "classes"
NEEDS = ("normal",)
SCORED = True
DRAWN = False
timed_answer = None
SPLITS = ("validation", "test")
PRIMARY_METRIC = PrimaryMetric("auroc", "auroc", "AUROC", "AUROC")
DECISION_SCORES = ("recall_at_threshold", "false_positive_rate_at_threshold")
RECALLS = {ranking.recall_name(share): share for share in ranking.FALSE_POSITIVE_RATES}
condense = keep_scores
SCORES = (
    *(name for name in ranking.SCORE_NAMES if name != PRIMARY_METRIC.name),
    *(f"{name}_ci95" for name in (*ranking.SCORE_NAMES, *DECISION_SCORES)),
    *(*DECISION_SCORES, "threshold", "accuracy_top1", "accuracy_balanced"),
    *("flips_gained", "flips_lost", "mcnemar_p", "agreement", "accuracy_top1_delta", "accuracy_top1_delta_ci95"),
    *(f"{name}_{end}" for name in (*DECISION_SCORES, *RECALLS) for end in ("delta", "delta_ci95")),
)


@dataclass(frozen=True)
class Settings:
    max_false_positive_rate: float = option(
        0.05, "share of normal samples that may be called defects; sets the threshold, on validation", low=0.0, high=0.5
    )


def judge(settings: Settings, answers: Mapping[str, Predictions]) -> Scores:
    """Choose the threshold on the validation split and compute all scores on the test split."""
    validation, test = require_split(answers, "validation"), answers["test"]
    check_splits(validation, test)
    threshold = ranking.choose_threshold(
        log_odds_against_normal(validation.outputs, validation.spec), find_defects(validation), settings.max_false_positive_rate
    )
    matrix = ranking.confusion_matrix(test.targets, test.outputs.argmax(axis=1), len(test.labels))
    kinds = {name: value for name, value in ranking.summarize_confusion(matrix).items() if name in SCORES}
    rejected = log_odds_against_normal(test.outputs, test.spec) > threshold
    found = {**score_ranking(test), **score_decisions(rejected, find_defects(test)), "threshold": threshold, **kinds}
    per_kind = dict(zip(test.labels, ranking.recall_per_class(matrix), strict=True))
    decision = {"answer": "odds", "threshold": threshold}
    return Scores(found, decision, {"confusion": matrix.tolist(), "recall_per_class": per_kind})


def check_splits(validation: Predictions, test: Predictions) -> None:
    """DataError if a split lacks the samples that the threshold or a score is computed from."""
    normal = f"normal ({test.labels[test.spec['normal']]!r})"
    for split, found, kind in (
        ("validation", ~find_defects(validation), normal),
        ("test", ~find_defects(test), normal),
        ("test", find_defects(test), "a defect"),
    ):
        if not found.any():
            raise DataError(
                f"data.splits.{split}: none of its {len(found)} samples is {kind}, and the task defect_detection needs some of them; "
                "add such samples, or raise the share of this split"
            )


def find_defects(answers: Predictions) -> np.ndarray:
    """Which samples are truly defects, bool [n]."""
    defect: np.ndarray = answers.targets != answers.spec["normal"]
    return defect


def score_ranking(test: Predictions) -> dict[str, Any]:
    """The scores of the ranking (ranking.SCORE_NAMES) with their intervals, by the bootstrap; that of the AUROC by `auroc_interval`, that
    of a recall also holds the exact one of so many defects."""
    scores, defect = log_odds_against_normal(test.outputs, test.spec), find_defects(test)
    order = Ranking.of(scores, defect)
    values = ranking.compute_scores(order, np.ones((1, len(test.targets)), np.float32))[0]
    draws = bootstrap(lambda weights: ranking.compute_scores(order, weights), defect)
    intervals = {f"{name}_ci95": list(percentile_interval(draws[:, i])) for i, name in enumerate(ranking.SCORE_NAMES)}
    intervals["auroc_ci95"] = list(auroc_interval(scores, defect))
    for name, share in RECALLS.items():
        low, high = paired.exact_interval(int(find_recalled(scores, defect, share).sum()), int(defect.sum()))
        drawn = intervals[f"{name}_ci95"]
        intervals[f"{name}_ci95"] = [min(low, drawn[0]), max(high, drawn[1])]
    return {**dict(zip(ranking.SCORE_NAMES, values.tolist(), strict=True)), **intervals}


def score_decisions(rejected: np.ndarray, defect: np.ndarray) -> dict[str, Any]:
    """Shares of defects and of normal samples that are called defects, with their exact intervals. Both arrays: bool [n]."""
    counts = [(int(rejected[kind].sum()), int(kind.sum())) for kind in (defect, ~defect)]
    shares = {name: hits / total for name, (hits, total) in zip(DECISION_SCORES, counts, strict=True)}
    return shares | {f"{name}_ci95": list(paired.exact_interval(*count)) for name, count in zip(DECISION_SCORES, counts, strict=True)}


def compare(settings: Settings, reference: Predictions, variant: Predictions) -> Comparison:
    """The difference of the two AUROCs; flips of the decisions at each one's own threshold, with the differences in recall and false
    positive rate that they make; the difference in top-1 accuracy, which no threshold enters."""
    defect = find_defects(variant)
    scores = [log_odds_against_normal(answers.outputs, answers.spec) for answers in (reference, variant)]
    before, after = decide(reference), decide(variant)
    others = {
        "recall_at_threshold": paired.compare_shares(before.correct[defect], after.correct[defect]),
        "false_positive_rate_at_threshold": paired.compare_shares(~before.correct[~defect], ~after.correct[~defect]),
        "accuracy_top1": paired.compare_shares(*(each.outputs.argmax(axis=1) == each.targets for each in (reference, variant))),
        **{name: compare_recall(scores[0], scores[1], defect, share) for name, share in RECALLS.items()},
    }
    deltas = {f"{name}_delta": found.delta for name, found in others.items()}
    intervals = {f"{name}_delta_ci95": list(found.delta_ci95) for name, found in others.items()}
    agreement = float(np.mean(np.array(before.decided) == np.array(after.decided)))
    flips = paired.compare_shares(before.correct, after.correct).scores
    return compare_auroc(scores[0], scores[1], defect).with_scores(**flips, agreement=agreement, **deltas, **intervals)


def decide(answers: Predictions) -> Decisions:
    """Defect or normal for each sample, at the variant's own threshold."""
    rejected, defect = log_odds_against_normal(answers.outputs, answers.spec) > answers.spec["threshold"], find_defects(answers)
    said = tuple(DEFECT if is_rejected else answers.labels[answers.spec["normal"]] for is_rejected in rejected)
    return Decisions(said, tuple(answers.labels[i] for i in answers.targets), rejected == defect)
