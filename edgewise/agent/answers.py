"""Turn the outputs of a model into answers. The one implementation, used in evaluation and on the device; Python 3.9.

spec = {"answer": "highest" | "odds" | "each" | "values" | "vector", "meaning": "logits" | "probabilities" | None,
        "normal": position of the normal label ("odds"), "threshold": number ("odds" and "each"),
        "pooling": "none" | "first" | "mean" ("vector")}
for answer in make_answers(outputs, spec, labels):      # one dict for each sample
    ...
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

MIN_PROBABILITY = 1e-12  # a quantized softmax rounds small probabilities to 0, which would be minus infinity as a logarithm


def make_answers(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One answer for each row of `outputs`, [n, ...]. spec["answer"] is a key of MAKERS."""
    return MAKERS[spec["answer"]](outputs, spec, labels)


def most_likely_label(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The label with the highest output, [n, labels], and its probability."""
    probabilities = softmax(to_log_scale(outputs, spec))
    return [{"label": labels[i], "probability": float(row[i])} for i, row in zip(outputs.argmax(axis=1), probabilities)]


def label_by_threshold(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """A defect where the log odds against the normal label exceed the threshold; `label` is then the likeliest other label."""
    scores = log_odds_against_normal(outputs, spec)
    kinds = np.where(np.arange(outputs.shape[1]) == spec["normal"], -np.inf, outputs).argmax(axis=1)
    normal = labels[spec["normal"]]
    return [
        {"label": labels[kind] if score > spec["threshold"] else normal, "defect": bool(score > spec["threshold"]), "score": float(score)}
        for score, kind in zip(scores, kinds)
    ]


def labels_above_threshold(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """All labels whose own output, [n, labels], reaches the threshold."""
    return [{"labels": [label for label, value in zip(labels, row) if value >= spec["threshold"]]} for row in outputs]


def raw_values(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The outputs themselves, by label where there is one label for each value."""
    if len(labels) == int(np.prod(outputs.shape[1:])):
        return [dict(zip(labels, row.ravel().tolist())) for row in outputs]
    return [{"values": row.tolist()} for row in outputs]


def embeddings(outputs: np.ndarray, spec: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The vector of each sample."""
    return [{"embedding": row.tolist()} for row in to_vectors(outputs, spec["pooling"])]


def to_vectors(outputs: np.ndarray, pooling: str) -> np.ndarray:
    """[n, d] without axes of length one behind the first; of a vector for each token, [n, tokens, d], the `first` or their `mean`."""
    slim = outputs.reshape(len(outputs), *(side for side in outputs.shape[1:] if side != 1))
    if pooling != "none" and slim.ndim == 3:
        vectors: np.ndarray = slim[:, 0] if pooling == "first" else slim.mean(axis=1)
        return vectors
    return slim


MAKERS = {
    "highest": most_likely_label,
    "odds": label_by_threshold,
    "each": labels_above_threshold,
    "values": raw_values,
    "vector": embeddings,
}


def log_odds_against_normal(outputs: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """log(probability of any other label / probability of the normal label): float64 [n], from outputs [n, labels]."""
    logits = to_log_scale(outputs, spec)
    others = np.delete(logits, spec["normal"], axis=1)
    highest = others.max(axis=1)
    odds: np.ndarray = highest + np.log(np.exp(others - highest[:, None]).sum(axis=1)) - logits[:, spec["normal"]]
    return odds


def to_log_scale(outputs: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """The outputs as logits, float64: softmax (or, for independent labels, sigmoid) turns them into probabilities."""
    converted = outputs.astype(np.float64)
    return np.log(np.maximum(converted, MIN_PROBABILITY)) if spec.get("meaning") == "probabilities" else converted


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis of logits [n, labels]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
