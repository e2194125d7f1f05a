"""Embeddings, of faces or sentences: whether a variant's stand to each other as the reference's do. Labels are not needed.

What is scored is the share of test samples whose nearest neighbour, by cosine among the other test samples, is still the reference's: what
a search by the variant would answer differently. The reference has 1, no variant more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.agent.answers import to_vectors
from edgewise.config.settings import option
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import Arrays, Comparison, Decisions, Predictions, PrimaryMetric, Scores
from edgewise.stats import paired
from edgewise.stats.neighbours import cosines, neighbours_kept

TARGETS = None
NEEDS: tuple[str, ...] = ()
SCORED = False
DRAWN = False
timed_answer = None
SPLITS = ("test",)
PRIMARY_METRIC = PrimaryMetric("nearest_kept", "nearest_kept", "nearest neighbour kept", "nearest kept", relative=True)
FEW = 5
SCORES = (f"nearest_{FEW}_kept", "cosine_mean", "cosine_p5", "cosine_lowest")


@dataclass(frozen=True)
class Settings:
    output: str | None = option(None, "output that holds the embedding; null: the only one with one vector for each sample")
    pooling: str = option(
        "none",
        "of an output with a vector for each token: first (as BERT's [CLS]) or mean (of all positions, padding too); none: it has one",
        choices=("none", "first", "mean"),
    )


def condense(settings: Settings, spec: Mapping[str, Any], outputs: Arrays) -> Arrays:
    """The embeddings, float32 [n, d]. ConfigError where it is not clear which output holds them."""
    vectors = {name: to_vectors(array, settings.pooling) for name, array in outputs.items() if settings.output in (None, name)}
    fitting = {name: array for name, array in vectors.items() if array.ndim == 2 and array.shape[1] > 1}
    if len(fitting) != 1:
        shapes = ", ".join(f"{name} {list(array.shape[1:])}" for name, array in outputs.items())
        raise ConfigError(
            f"task.output: {'nothing' if settings.output is None else settings.output!r}, and {len(fitting)} outputs have one vector for"
            f" each sample with task.pooling={settings.pooling}; the model returns {shapes}; name one of them, and set task.pooling to"
            " first or mean where it has one for each token"
        )
    return fitting


def judge(settings: Settings, answers: Mapping[str, Predictions]) -> Scores:
    samples = len(answers["test"].outputs)
    if samples < 3:
        raise DataError(f"data.splits.test: {samples} samples; the task embedding needs at least 3 for neighbours to differ; add samples")
    return Scores({}, {"answer": "vector", "output": next(iter(answers["test"].ports)), "pooling": settings.pooling})


def compare(settings: Settings, reference: Predictions, variant: Predictions) -> Comparison:
    """The share of samples whose nearest neighbour stays, minus 1, with its exact interval; how the vectors turned."""
    before, after = reference.outputs, variant.outputs
    samples, angles = len(before), cosines(before, after)
    kept = neighbours_kept(before, after, 1)
    lost = int(np.sum(kept < 1))
    low, high = (0.0, 0.0) if np.array_equal(before, after) else paired.exact_interval(lost, samples)
    found = paired.compare_shares(np.ones(samples, bool), kept == 1)
    scores = {
        f"nearest_{FEW}_kept": float(neighbours_kept(before, after, min(FEW, samples - 1)).mean()),
        "cosine_mean": float(angles.mean()),
        "cosine_p5": float(np.percentile(angles, 5)),
        "cosine_lowest": float(angles.min()),
    }
    return Comparison(-lost / samples, (-high, -low), found.resolvable, found.needed, scores)


def decide(answers: Predictions) -> Decisions | None:
    return None
