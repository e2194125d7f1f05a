"""Any number of labels per sample: macro F1, compared by a paired bootstrap, and flips of exact matches."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgewise.config.settings import option
from edgewise.plugins import Comparison, Decisions, Predictions, PrimaryMetric, Scores
from edgewise.stats import paired
from edgewise.stats.independent import bootstrapped_interval
from edgewise.stats.resampling import bootstrap
from edgewise.tasks.predictions import keep_scores

TARGETS = "multi_label"
NEEDS: tuple[str, ...] = ()
SCORED = True
DRAWN = False
timed_answer = None
SPLITS = ("test",)
PRIMARY_METRIC = PrimaryMetric("macro_f1", "macro_f1", "macro F1", "macro F1")
condense = keep_scores
SCORES = ("macro_f1_ci95", "micro_f1", "exact_match", "label_accuracy", "flips_gained", "flips_lost", "mcnemar_p", "agreement")


@dataclass(frozen=True)
class Settings:
    threshold: float = option(0.5, "probability from which on a label is predicted", low=0.001, high=0.999)


def judge(settings: Settings, answers: Mapping[str, Predictions]) -> Scores:
    test = answers["test"]
    threshold = to_output_scale(settings.threshold, test.spec.get("meaning"))
    said, true = test.outputs >= threshold, test.targets > 0
    counts = hits_and_misses(said, true)
    whole = np.ones((1, len(true)), np.float32)
    draws = bootstrap(lambda weights: macro_f1(weights, counts), np.zeros(len(true), int))
    totals, value = [part.sum() for part in counts], float(macro_f1(whole, counts)[0])
    return Scores(
        {
            "macro_f1": value,
            "macro_f1_ci95": list(bootstrapped_interval(value, draws, len(true), len(true))),
            "micro_f1": float(2 * totals[0] / max(1, 2 * totals[0] + totals[1])),
            "exact_match": float((said == true).all(axis=1).mean()),
            "label_accuracy": float((said == true).mean()),
        },
        {"answer": "each", "threshold": threshold},
        {"recall_per_class": {label: recall(said[:, i], true[:, i]) for i, label in enumerate(test.labels)}},
    )


def to_output_scale(probability: float, meaning: str | None) -> float:
    """The model output that corresponds to a probability: itself, or its logit."""
    return probability if meaning == "probabilities" else math.log(probability / (1 - probability))


def recall(said: np.ndarray, true: np.ndarray) -> float | None:
    return float(said[true].mean()) if true.any() else None


def hits_and_misses(said: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True positives, and false positives plus false negatives: float32 [n, k] each."""
    return (said & true).astype(np.float32), (said != true).astype(np.float32)


def macro_f1(weights: np.ndarray, counts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The mean of 2 TP / (2 TP + FP + FN) over the labels, [draws]; a label neither true nor predicted counts 0, as in scikit-learn."""
    hits, misses = (weights @ part for part in counts)
    means: np.ndarray = (2 * hits / np.maximum(2 * hits + misses, 1)).mean(axis=1)
    return means


def compare(settings: Settings, reference: Predictions, variant: Predictions) -> Comparison:
    true = variant.targets > 0
    said = [answers.outputs >= answers.spec["threshold"] for answers in (reference, variant)]
    before, after = (hits_and_misses(labels, true) for labels in said)

    def difference(weights: np.ndarray) -> np.ndarray:
        deltas: np.ndarray = macro_f1(weights, after) - macro_f1(weights, before)
        return deltas

    delta = float(difference(np.ones((1, len(true)), np.float32))[0])
    found = paired.compare_bootstrapped(delta, bootstrap(difference, np.zeros(len(true), int)), len(true), len(true))
    whole = paired.compare_shares(*((labels == true).all(axis=1) for labels in said))
    return found.with_scores(**whole.scores, agreement=float((said[0] == said[1]).all(axis=1).mean()))


def decide(answers: Predictions) -> Decisions:
    said, true = answers.outputs >= answers.spec["threshold"], answers.targets > 0
    return Decisions(format_labels(said, answers.labels), format_labels(true, answers.labels), (said == true).all(axis=1))


def format_labels(chosen: np.ndarray, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels of each row of bool [n, k], joined by commas."""
    return tuple(", ".join(labels[i] for i in np.flatnonzero(row)) or "(nothing)" for row in chosen)
