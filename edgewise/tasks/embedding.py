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

TARGETS = None
NEEDS: tuple[str, ...] = ()
SCORED = False
DRAWN = False
timed_answer = None
SPLITS = ("test",)
PRIMARY_METRIC = PrimaryMetric("nearest_kept", "nearest_kept", "nearest neighbour kept", "nearest kept", relative=True)
FEW = 5
SCORES = (f"nearest_{FEW}_kept", "cosine_mean", "cosine_p5", "cosine_lowest")
TIE = 1e-6  # similarities that differ by less are equal: float32 sums differ by as much
MAX_CELLS = 4_000_000  # similarities that are held at a time


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


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Each row at length 1, float64; a row of zeros stays one."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    rows: np.ndarray = wide / np.where(lengths > 0, lengths, 1)
    return rows


def cosines(reference: np.ndarray, variant: np.ndarray) -> np.ndarray:
    """The cosine of the angle between each two rows, float64 [n], from [n, d]; 0 where one is all zeros and the other is not."""
    one, other = normalize_rows(reference), normalize_rows(variant)
    both_zero = ~one.any(axis=1) & ~other.any(axis=1)
    return np.clip(np.where(both_zero, 1.0, (one * other).sum(axis=1)), -1.0, 1.0)


def neighbours_kept(reference: np.ndarray, variant: np.ndarray, k: int) -> np.ndarray:
    """For each sample the share of its k nearest neighbours by the reference that are among its k nearest by the variant: [n], from [n, d].

    Nearness is the cosine. Samples that are as near as the k-th count as near. k: at most n - 1.
    """
    one, other = (normalize_rows(vectors).astype(np.float32) for vectors in (reference, variant))
    step = max(1, MAX_CELLS // len(one))
    return np.concatenate([_kept(one, other, np.arange(start, min(start + step, len(one))), k) for start in range(0, len(one), step)])


def _kept(one: np.ndarray, other: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Of the samples `rows`."""
    before, after = (vectors[rows] @ vectors.T for vectors in (one, other))
    for similarities in (before, after):
        similarities[np.arange(len(rows)), rows] = -np.inf
    nearest = np.argpartition(-before, k - 1, axis=1)[:, :k]
    limit = -np.partition(-after, k - 1, axis=1)[:, k - 1 : k]
    shares: np.ndarray = (np.take_along_axis(after, nearest, axis=1) >= limit - TIE).mean(axis=1)
    return shares
