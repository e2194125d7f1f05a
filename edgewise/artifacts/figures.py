"""Figures of a variant by one flat name each: the objectives of sweeps, the metrics in MLflow, the card of a bundle.

Users type these names, so they stay as they are when the records in `results` are arranged otherwise.
"""

from collections.abc import Iterable
from typing import Any

from edgewise.artifacts.records import VariantSummary
from edgewise.config.schema import to_plain
from edgewise.plugins import PrimaryMetric

PATHS = {  # name -> where it stands in a VariantSummary
    "format": "format",
    "scheme": "scheme",
    "status": "status",
    "reason": "reason",
    "size_bytes": "file.size_bytes",
    "weights_bytes_by_dtype": "file.weights_bytes_by_dtype",
    "file_form": "file.form",
    "file_release": "file.runtime_release",
    "covered_share": "proof.covered_share",
    "kept_float": "proof.kept_float",
    "kept_int8": "proof.kept_int8",
    "sqnr_to_source_db": "proof.sqnr_to_source_db",
    "sqnr_as_written_db": "proof.sqnr_as_written_db",
    "samples": "quality.samples",
    "sqnr_db": "quality.sqnr_db",
    "latency_p50_ms": "latency.p50_ms",
    "latency_p50_ci95_ms": "latency.p50_ci95_ms",
    "latency_p90_ms": "latency.p90_ms",
    "latency_p90_ci95_ms": "latency.p90_ci95_ms",
    "latency_p95_ms": "latency.p95_ms",
    "latency_p99_ms": "latency.p99_ms",
    "latency_ratio_to_reference": "latency.ratio_to_reference",
    "latency_ratio_ci95": "latency.ratio_ci95",
    "latency_verdict": "latency.verdict",
    "latency_reason": "latency.missing_reason",
    "smallest_claim_share": "latency.smallest_claim_share",
    "load_ms": "latency.load_ms",
    "first_inference_ms": "latency.first_inference_ms",
    "bench_samples": "latency.samples",
    "processes": "latency.processes",
    "profile": "conditions.profile",
    "scope": "conditions.scope",
    "threads": "conditions.threads",
    "device_fingerprint": "conditions.device_fingerprint",
    "emulated": "conditions.emulated",
    "interleave": "conditions.interleave",
    "governor": "conditions.governor",
    "cpus": "conditions.cpus",
    "on_device": "agreement",
    "noise_grade": "noise.grade",
    "noise_reason": "noise.reason",
    "baseline_rss_bytes": "memory.baseline_rss_bytes",
    "peak_rss_bytes": "memory.peak_rss_bytes",
    "peak_rss_above_baseline_bytes": "memory.peak_rss_above_baseline_bytes",
    "memory_rss_bytes": "memory.steps",
    "memory_running_bytes_anonymous": "memory.running_anonymous_bytes",
    "memory_running_bytes_file": "memory.running_file_bytes",
    "energy_status": "energy.status",
    "energy": "energy.figures",
    "energy_net_mj": "energy.figures.net_mj",
    "fits": "fits_mb",
    "sustained": "sustained",
    "engine_auto": "engine_auto",
    "operators_status": "operators.status",
    "top_operators": "operators.top",
    "warnings": "warnings",
    "explanation": "explanation",
}
SCORE_PATHS = {  # end of a name that begins with the primary metric's -> where it stands in a VariantSummary
    "delta": "quality.delta",
    "delta_ci95": "quality.delta_ci95",
    "verdict": "quality.verdict",
    "resolvable": "quality.resolvable",
    "samples_needed": "quality.samples_needed",
}


def paths(metric: PrimaryMetric | None) -> dict[str, str]:
    """Every name but those of the task's further scores, and where it stands. The scores are called as the task calls them:
    accuracy_top1, accuracy_delta."""
    if metric is None:
        return PATHS
    return {**PATHS, metric.name: "quality.score", **{f"{metric.stem}_{end}": path for end, path in SCORE_PATHS.items()}}


def figures(row: VariantSummary, metric: PrimaryMetric | None) -> dict[str, Any]:
    """All figures of a row by name, as plain data; None is "not known"."""
    return {**{name: to_plain(at(row, path)) for name, path in paths(metric).items()}, **to_plain(row.quality.scores)}


def figure(row: VariantSummary, name: str) -> Any:
    """One of PATHS."""
    return at(row, PATHS[name])


def at(row: VariantSummary, path: str) -> Any:
    """What stands at a dotted path; None where one of its records is not there."""
    found: Any = row
    for part in path.split("."):
        found = None if found is None else getattr(found, part)
    return found


def metric_name(metric: PrimaryMetric, end: str) -> str:
    """One of SCORE_PATHS with the metric's own name: accuracy_verdict."""
    return f"{metric.stem}_{end}"


def names(metric: PrimaryMetric | None, scores: Iterable[str]) -> set[str]:
    """What a user may name. scores: of the task."""
    return {*paths(metric), *scores}
