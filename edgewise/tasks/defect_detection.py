"""Defects among normal samples: how well the score of being defect ranks them, and what a threshold makes of it.

The score is the log odds of the normal class against all others, so that any number of kinds of defects will do. The threshold is
chosen on the validation split, for each variant on its own answers, and stands in its manifest.
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
from edgewise.stats.resampling import distribution, percentiles

DEFECT = "defect"
TARGETS = "classes"
NEEDS = ("normal",)
SPLITS = ("validation", "test")
PRIMARY_METRIC = PrimaryMetric("auroc", "auroc", "AUROC", "AUROC")
DECIDED = ("recall_at_threshold", "false_alarms_at_threshold")
SCORES = (
    *(name for name in ranking.NAMES if name != PRIMARY_METRIC.name),
    *(f"{name}_ci95" for name in (*ranking.NAMES, *DECIDED)),
    *(*DECIDED, "threshold", "accuracy_top1", "accuracy_balanced"),
    *("flips_gained", "flips_lost", "mcnemar_p", "agreement", "accuracy_top1_delta", "accuracy_top1_delta_ci95"),
)


@dataclass(frozen=True)
class Settings:
    false_alarms: float = option(0.05, "share of normal samples that may be rejected; sets the threshold, on validation", low=0.0, high=0.5)


def judge(settings: Settings, answers: Mapping[str, Predictions]) -> Scores:
    held, test = answers["validation"], answers["test"]
    check_kinds(held, test)
    threshold = ranking.threshold(log_odds_against_normal(held.outputs, held.spec), is_defect(held), settings.false_alarms)
    matrix = ranking.confusion(test.targets, test.outputs.argmax(axis=1), len(test.labels))
    kinds = {name: value for name, value in ranking.confusion_summary(matrix).items() if name in SCORES}
    rejected = log_odds_against_normal(test.outputs, test.spec) > threshold
    found = {**ranked(test), **decided(rejected, is_defect(test)), "threshold": threshold, **kinds}
    per_kind = dict(zip(test.labels, ranking.recalls(matrix), strict=True))
    decision = {"answer": "odds", "threshold": threshold}
    return Scores(found, decision, {"confusion": matrix.tolist(), "recall_per_class": per_kind})


def check_kinds(held: Predictions, test: Predictions) -> None:
    """DataError where a split lacks the kind of samples that the threshold or a score is computed from."""
    normal = f"normal ({test.labels[test.spec['normal']]!r})"
    for split, found, kind in (
        ("validation", ~is_defect(held), normal),
        ("test", ~is_defect(test), normal),
        ("test", is_defect(test), "a defect"),
    ):
        if not found.any():
            raise DataError(
                f"data.splits.{split}: none of its {len(found)} samples is {kind}, and the task defect_detection needs some; "
                "add such samples, or raise the share of this split"
            )


def is_defect(answers: Predictions) -> np.ndarray:
    defect: np.ndarray = answers.targets != answers.spec["normal"]
    return defect


def ranked(test: Predictions) -> dict[str, Any]:
    """The scores of the ranking with their bootstrap intervals."""
    order = Ranking.of(log_odds_against_normal(test.outputs, test.spec), is_defect(test))
    values = ranking.summary(order, np.ones((1, len(test.targets)), np.float32))[0]
    draws = distribution(lambda weights: ranking.summary(order, weights), is_defect(test))
    intervals = {f"{name}_ci95": list(percentiles(draws[:, i])) for i, name in enumerate(ranking.NAMES)}
    return {**dict(zip(ranking.NAMES, values.tolist(), strict=True)), **intervals}


def decided(rejected: np.ndarray, defect: np.ndarray) -> dict[str, Any]:
    """Shares of defects and of normal samples that are rejected, with their exact intervals."""
    counts = [(int(rejected[kind].sum()), int(kind.sum())) for kind in (defect, ~defect)]
    shares = {name: hits / total for name, (hits, total) in zip(DECIDED, counts, strict=True)}
    return shares | {f"{name}_ci95": list(paired.exact_interval(*count)) for name, count in zip(DECIDED, counts, strict=True)}


def compare(settings: Settings, reference: Predictions, variant: Predictions) -> Comparison:
    """The difference of the two AUROCs over the same bootstrap samples; flips of the decisions at each one's own threshold; the
    difference in top-1, which no threshold enters."""
    defect = is_defect(variant)
    orders = [Ranking.of(log_odds_against_normal(answers.outputs, answers.spec), defect) for answers in (reference, variant)]

    def difference(weights: np.ndarray) -> np.ndarray:
        deltas: np.ndarray = ranking.auroc(orders[1], weights) - ranking.auroc(orders[0], weights)
        return deltas

    delta = float(difference(np.ones((1, len(defect)), np.float32))[0])
    least = int(min(defect.sum(), (~defect).sum()))
    found = paired.bootstrapped(delta, distribution(difference, defect), len(defect), least)
    before, after = decide(reference), decide(variant)
    agreement = float(np.mean(np.array(before.said) == np.array(after.said)))
    top1 = paired.flips(*(each.outputs.argmax(axis=1) == each.targets for each in (reference, variant)))
    plain = {"accuracy_top1_delta": top1.delta, "accuracy_top1_delta_ci95": list(top1.delta_ci95)}
    return found.with_scores(**paired.flips(before.right, after.right).scores, agreement=agreement, **plain)


def decide(answers: Predictions) -> Decisions:
    rejected, defect = log_odds_against_normal(answers.outputs, answers.spec) > answers.spec["threshold"], is_defect(answers)
    said = tuple(DEFECT if is_rejected else answers.labels[answers.spec["normal"]] for is_rejected in rejected)
    return Decisions(said, tuple(answers.labels[i] for i in answers.targets), rejected == defect)
