"""Scores of a classifier, all read off one confusion matrix (rows: truth, columns: answer)."""

import numpy as np


def confusion(targets: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts, int64 [classes, classes], from integer labels [n] and [n]."""
    return np.bincount(targets * classes + answers, minlength=classes * classes).reshape(classes, classes)


def recalls(matrix: np.ndarray) -> list[float | None]:
    """Share of each true class that was found; None for a class without samples."""
    return [float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(matrix)]


def summary(matrix: np.ndarray) -> dict[str, float]:
    """accuracy_top1; accuracy_balanced: mean recall over the classes with samples; macro_f1 over classes seen or answered."""
    hits = np.diag(matrix)
    found = [recall for recall in recalls(matrix) if recall is not None]
    sizes = matrix.sum(axis=0) + matrix.sum(axis=1)
    f1 = 2 * hits[sizes > 0] / sizes[sizes > 0]
    return {
        "accuracy_top1": float(hits.sum() / matrix.sum()),
        "accuracy_balanced": float(np.mean(found)),
        "macro_f1": float(f1.mean()),
    }
