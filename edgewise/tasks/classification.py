"""One class per sample: top-1 accuracy, compared by paired flips."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgewise.agent.answers import to_log_scale
from edgewise.plugins import Comparison, Decisions, Predictions, PrimaryMetric, Scores
from edgewise.stats import independent, paired, ranking
from edgewise.tasks.predictions import keep_scores

TARGETS = "classes"
NEEDS: tuple[str, ...] = ()
SCORED = True
DRAWN = False
timed_answer = None
SPLITS = ("test",)
PRIMARY_METRIC = PrimaryMetric("accuracy_top1", "accuracy", "accuracy top-1", "accuracy")
condense = keep_scores
SCORES = ("accuracy_top1_ci95", "accuracy_balanced", "macro_f1", "flips_gained", "flips_lost", "mcnemar_p", "agreement", "kl_nats")


@dataclass(frozen=True)
class Settings:
    pass


def judge(settings: Settings, answers: Mapping[str, Predictions]) -> Scores:
    test = answers["test"]
    matrix = ranking.confusion_matrix(test.targets, test.outputs.argmax(axis=1), len(test.labels))
    recalls = dict(zip(test.labels, ranking.recall_per_class(matrix), strict=True))
    interval = independent.wilson_interval(int(matrix.trace()), int(matrix.sum()))
    scores = {**ranking.summarize_confusion(matrix), "accuracy_top1_ci95": list(interval)}
    return Scores(scores, {"answer": "highest"}, {"confusion": matrix.tolist(), "recall_per_class": recalls})


def compare(settings: Settings, reference: Predictions, variant: Predictions) -> Comparison:
    answer_reference, answer = reference.outputs.argmax(axis=1), variant.outputs.argmax(axis=1)
    found = paired.compare_shares(answer_reference == variant.targets, answer == variant.targets)
    agreement = float(np.mean(answer == answer_reference))
    logits = (to_log_scale(answers.outputs, answers.spec) for answers in (reference, variant))
    return found.with_scores(agreement=agreement, kl_nats=paired.kl_nats(*logits))


def decide(answers: Predictions) -> Decisions:
    chosen = answers.outputs.argmax(axis=1)
    names = answers.labels
    return Decisions(tuple(names[i] for i in chosen), tuple(names[i] for i in answers.targets), chosen == answers.targets)
