"""The results of a variant by flat names: the objectives of sweeps, the metrics in MLflow, the card of a bundle.

Users type these names, so they stay the same when the records in `records` are arranged differently.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from edgewise.artifacts.records import VariantSummary
from edgewise.config.schema import to_plain
from edgewise.plugins import PrimaryMetric

PATHS = {  # name -> dotted path in a VariantSummary
    "format": "format",
    "scheme": "scheme",
    "status": "status",
    "reason": "reason",
    "size_bytes": "file.size_bytes",
    "weights_bytes_by_dtype": "file.weights_bytes_by_dtype",
    "file_form": "file.form",
    "file_release": "file.runtime_release",
    "multiply_adds": "file.multiply_adds",
    "weights": "file.weights",
    "covered_share": "proof.covered_share",
    "kept_float": "proof.kept_float",
    "kept_int8": "proof.kept_int8",
    "sqnr_to_source_db": "proof.sqnr_to_source_db",
    "sqnr_as_written_db": "proof.sqnr_as_written_db",
    "samples": "quality.samples",
    "sqnr_db": "quality.sqnr_db",
    "latency_p50_ms": "latency.p50_ms",
    "real_time_factor": "latency.real_time_factor",
    "latency_p50_ci95_ms": "latency.p50_ci95_ms",
    "latency_p90_ms": "latency.p90_ms",
    "latency_p90_ci95_ms": "latency.p90_ci95_ms",
    "latency_p95_ms": "latency.p95_ms",
    "latency_p99_ms": "latency.p99_ms",
    "latency_ratio_to_reference": "latency.ratio_to_reference",
    "latency_ratio_ci95": "latency.ratio_ci95",
    "visits": "latency.visits",
    "between_visits": "latency.between_visits",
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
SCORE_PATHS = {  # end of a name that begins with the primary metric's stem -> dotted path in a VariantSummary
    "delta": "quality.delta",
    "delta_ci95": "quality.delta_ci95",
    "verdict": "quality.verdict",
    "resolvable": "quality.resolvable",
    "samples_needed": "quality.samples_needed",
}
RENAMED = {  # former names of scores, for the message where a user still has them
    "recall_at_1pct_false_alarms": "recall_at_fpr_1pct",
    "recall_at_5pct_false_alarms": "recall_at_fpr_5pct",
    "false_alarms_at_threshold": "false_positive_rate_at_threshold",
}


def metric_paths(metric: PrimaryMetric | None) -> dict[str, str]:
    """All names except the task's other scores, with their paths. The primary metric's names are the task's own: accuracy_top1,
    accuracy_delta."""
    if metric is None:
        return PATHS
    return {**PATHS, metric.name: "quality.score", **{f"{metric.stem}_{end}": path for end, path in SCORE_PATHS.items()}}


def flatten_summary(row: VariantSummary, metric: PrimaryMetric | None) -> dict[str, Any]:
    """All results of a variant by name, as plain data; None is "not known"."""
    return {**{name: to_plain(get_path(row, path)) for name, path in metric_paths(metric).items()}, **to_plain(row.quality.scores)}


def get_metric(row: VariantSummary, name: str) -> Any:
    """The result of one name in PATHS."""
    return get_path(row, PATHS[name])


def get_path(row: VariantSummary, path: str) -> Any:
    """The value at a dotted path; None if one of the records on the way is None."""
    found: Any = row
    for part in path.split("."):
        found = None if found is None else getattr(found, part)
    return found


def may_claim(results: Iterable[Mapping[str, Any]]) -> bool:
    """False where latency was measured and nowhere has an interval, as by the profile smoke. results: of `flatten_summary`."""
    measured = [result for result in results if result.get("latency_ratio_to_reference") is not None]
    return not measured or any(result.get("latency_ratio_ci95") for result in measured)


def score_metric_name(metric: PrimaryMetric, end: str) -> str:
    """The name of one of SCORE_PATHS for a metric: accuracy_verdict."""
    return f"{metric.stem}_{end}"


def known_names(metric: PrimaryMetric | None, scores: Iterable[str]) -> set[str]:
    """All names that a user may give. scores: SCORES of the task."""
    return {*metric_paths(metric), *scores}


def number_names(metric: PrimaryMetric | None, scores: Iterable[str]) -> set[str]:
    """Those whose values are numbers, which can be maximized or minimized."""
    return {name for name, path in metric_paths(metric).items() if _is_number(path)} | {
        name for name in scores if not name.endswith("_ci95")
    }


def _is_number(path: str) -> bool:
    """Whether a dotted path in a VariantSummary leads to a number, which may be missing."""
    kind: Any = VariantSummary
    for part in path.split("."):
        hint = typing.get_type_hints(kind).get(part) if dataclasses.is_dataclass(kind) else None
        kind = next((each for each in typing.get_args(hint) if each is not type(None)), None) if _is_optional(hint) else hint
    return kind in (int, float)


def _is_optional(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)
