"""metrics/points.json and the confusion lists: what `dvc plots` draws."""

from collections.abc import Iterator
from typing import Any

from stages.core.judging import Decisions
from stages.core.results import Summary


def points(summary: Summary) -> list[dict[str, Any]]:
    """One point for each variant with a latency, for the scatter of its score against latency; the score by its own name too."""
    named = {summary.primary_metric.name} if summary.primary_metric else set()
    return [
        {
            "variant": name,
            "format": row.format,
            "scheme": row.scheme,
            "score": row.quality.score,
            **dict.fromkeys(named, row.quality.score),
            "latency_p50_ms": row.latency.p50_ms,
            "size_mb": round((row.file.size_bytes or 0) / 1e6, 3),
            "pareto": name in summary.pareto,
        }
        for name, row in summary.variants.items()
        if row.ok and row.latency.p50_ms is not None
    ]


def confusion(decided: Decisions) -> Iterator[dict[str, str]]:
    """{"actual", "predicted"} of every test sample, as DVC's confusion template wants them."""
    for truth, said in zip(decided.truth, decided.said, strict=True):
        yield {"actual": truth, "predicted": said}
