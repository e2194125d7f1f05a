"""metrics/points.json and the confusion lists: what `dvc plots` draws."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import artifact
from stages.core.results import Summary


def points(summary: Summary) -> list[dict[str, Any]]:
    """One point for each variant with a latency, for the scatter of accuracy against latency."""
    return [
        {
            "variant": name,
            "format": row.format,
            "scheme": row.scheme,
            "accuracy_top1": row.accuracy_top1,
            "latency_p50_ms": row.latency_p50_ms,
            "size_mb": round((row.size_bytes or 0) / 1e6, 3),
            "pareto": name in summary.pareto,
        }
        for name, row in summary.variants.items()
        if row.ok and row.latency_p50_ms is not None
    ]


def confusion(folder: Path) -> Iterator[dict[str, str]]:
    """{"actual", "predicted"} of every test sample of the evaluation in `folder`, as DVC's confusion template wants them."""
    labels = artifact.read(folder).labels
    answers, targets = np.load(folder / "outputs.npy").argmax(axis=1), np.load(folder / "targets.npy")
    for target, answer in zip(targets, answers, strict=True):
        yield {"actual": labels[target], "predicted": labels[answer]}
