"""Numbers: mean absolute error, compared by the paired differences of the errors of each sample."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgewise.errors import DataError
from edgewise.plugins import Comparison, Decisions, Predictions, PrimaryMetric, Scores
from edgewise.stats import paired
from edgewise.stats.independent import mean_interval
from edgewise.tasks.predictions import keep_scores

TARGETS = "values"
NEEDS: tuple[str, ...] = ()
SCORED = True
DRAWN = False
timed_answer = None
SPLITS = ("test",)
PRIMARY_METRIC = PrimaryMetric("mae", "mae", "mean absolute error", "MAE", higher_is_better=False, share=False)
condense = keep_scores
SCORES = ("mae_ci95", "rmse", "r2", "largest_error")


@dataclass(frozen=True)
class Settings:
    pass


def absolute_errors(answers: Predictions) -> np.ndarray:
    """|output - target|, float64 [n, k]."""
    distances: np.ndarray = np.abs(answers.outputs.astype(np.float64) - answers.targets)
    return distances


def judge(settings: Settings, answers: Mapping[str, Predictions]) -> Scores:
    """r2: mean over the outputs of 1 - mean squared error / variance; None if a target is the same for all samples."""
    test = answers["test"]
    if len(test.targets) < 2:
        raise DataError(
            f"data.splits.test: {len(test.targets)} sample; the task regression needs at least 2 to compare variants; add samples"
        )
    found = absolute_errors(test)
    squared, variance = (found**2).mean(axis=0), test.targets.astype(np.float64).var(axis=0)
    r2 = float((1 - squared / variance).mean()) if (variance > 0).all() else None
    per_output = dict(zip(test.labels, found.mean(axis=0).tolist(), strict=True))
    scores = {"mae": float(found.mean()), "rmse": float(np.sqrt(squared.mean())), "r2": r2, "largest_error": float(found.max())}
    interval = list(mean_interval(found.mean(axis=1)))
    return Scores({**scores, "mae_ci95": interval}, {"answer": "values"}, {"mae_per_output": per_output})


def compare(settings: Settings, reference: Predictions, variant: Predictions) -> Comparison:
    return paired.compare_means((absolute_errors(variant) - absolute_errors(reference)).mean(axis=1))


def decide(answers: Predictions) -> Decisions | None:
    return None
