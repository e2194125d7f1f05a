"""From the outputs of a model to an answer: the one implementation, in evaluation and on the device; Python 3.9.

spec = {"answer": "highest" | "odds" | "each" | "values", "meaning": "logits" | "probabilities" | None,
        "normal": position of the normal label, "threshold": ...}      # the last two where the answer needs them
said = answer(outputs, spec, labels)        # one dict a sample
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

LEAST_PROBABILITY = 1e-12  # what is 0 in a quantized softmax is not impossible


def log_scale(outputs: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """The outputs on a scale that a softmax (or, each for itself, a sigmoid) makes probabilities of: float64."""
    given = outputs.astype(np.float64)
    return np.log(np.maximum(given, LEAST_PROBABILITY)) if spec.get("meaning") == "probabilities" else given


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def odds(outputs: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """log(probability of any other label / probability of the normal one), float64 [n]."""
    logits = log_scale(outputs, spec)
    others = np.delete(logits, spec["normal"], axis=1)
    highest = others.max(axis=1)
    odds: np.ndarray = highest + np.log(np.exp(others - highest[:, None]).sum(axis=1)) - logits[:, spec["normal"]]
    return odds


def highest(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The label with the highest score."""
    probabilities = softmax(log_scale(outputs, spec))
    return [{"label": labels[i], "probability": float(row[i])} for i, row in zip(outputs.argmax(axis=1), probabilities)]


def above_threshold(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Whether the odds against the normal label are above the threshold, and which other label is likeliest."""
    scores = odds(outputs, spec)
    kinds = np.where(np.arange(outputs.shape[1]) == spec["normal"], -np.inf, outputs).argmax(axis=1)
    normal = labels[spec["normal"]]
    return [
        {"label": labels[kind] if score > spec["threshold"] else normal, "defect": bool(score > spec["threshold"]), "score": float(score)}
        for score, kind in zip(scores, kinds)
    ]


def each(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Every label whose own output reaches the threshold."""
    return [{"labels": [label for label, value in zip(labels, row) if value >= spec["threshold"]]} for row in outputs]


def values(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The outputs themselves, by name where they have names."""
    if len(labels) == int(np.prod(outputs.shape[1:])):
        return [dict(zip(labels, row.ravel().tolist())) for row in outputs]
    return [{"values": row.tolist()} for row in outputs]


ANSWERS = {"highest": highest, "odds": above_threshold, "each": each, "values": values}


def answer(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One answer for each row of `outputs`, [n, ...]."""
    return ANSWERS[spec["answer"]](outputs, spec, labels)
