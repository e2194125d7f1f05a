"""The records in metrics/: what the stages measured, one small JSON file each, checked when read.

metrics/evaluate/V.json   Evaluation, or Failed
metrics/bench/V.json      BenchResult, or Failed
metrics/summary.json      Summary, written by `report` from all of the above
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stages.core.artifact import write_json
from stages.core.config import Budget, to_plain
from stages.core.errors import ConfigError, EdgewiseError
from stages.core.judging import Headline
from stages.core.settings import build

SCHEMA = 1
METRICS = Path("metrics")
SUMMARY = METRICS / "summary.json"

Interval = tuple[float, ...] | None  # (low, high), 95 %
R = TypeVar("R")


@dataclass(frozen=True)
class Failed:
    """In the place of any record: what it was to hold could not be had, for a reason that would come up again."""

    reason: str


@dataclass(frozen=True)
class Evaluation:
    """One variant on the whole test split. covered_share is None where the scheme covers nothing; more: the scores of the task."""

    samples: int
    size_bytes: int
    covered_share: float | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """Outputs on the device against those of the same file on this machine, for the same test samples.

    verdict: identical (bit by bit) or within tolerance; a device that computes something else makes the variant a failed one.
    same_answers: share of the samples whose largest output is the same one; None where there is only one.
    least_sqnr_db: the scheme's tolerance.
    """

    samples: int
    verdict: str
    same_answers: float | None
    sqnr_db: float
    least_sqnr_db: float
    largest_difference: float


@dataclass(frozen=True)
class BenchResult:
    """One variant on the device, interleaved with the reference. Intervals are None where the profile claims nothing, and all
    of latency and memory is where the device is emulated: an emulator tells what a device answers, not what that costs."""

    variant: str
    reference: str
    profile: str
    scope: str
    threads: int
    device_fingerprint: str
    emulated: bool = False
    on_device: Agreement | None = None
    latency_p50_ms: float | None = None
    reference_p50_ms: float | None = None
    latency_ratio_to_reference: float | None = None
    processes: int | None = None
    samples: int | None = None
    noise_grade: str | None = None
    stop: str | None = None
    latency_p50_ci95_ms: Interval = None
    latency_ratio_ci95: Interval = None
    latency_p90_ms: float | None = None
    latency_p90_ci95_ms: Interval = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    baseline_rss_bytes: int | None = None
    peak_rss_bytes: int | None = None
    peak_rss_above_baseline_bytes: int | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VariantSummary:
    """All that is known of one variant; None is "not known". A failed one keeps what was measured before it failed.

    score: of the task's headline, score_delta: variant minus reference on the same samples; in metrics they have the headline's names
    (accuracy_top1, accuracy_delta). scores: what else the task tells, by name; flips_gained: samples that only the variant gets right.
    sqnr_db: the outputs against the reference's; sqnr_to_source_db: against the source, on its probe samples;
    sqnr_as_written_db: the same, computed without fused integer kernels.
    file_form: how the file is written, where otherwise than its format does; file_release: of the runtime, where it is tied to one.
    latency_ratio_to_reference: variant / reference. latency_verdict: faster, slower, no difference claimed, reference.
    on_device: the outputs there against this machine's. emulated: of the device; then nothing was timed.
    memory_rss_bytes: resident after each step of the memory pass, in its order; memory_running_bytes: after the runs, what is the
    process's own (anonymous) and what is mapped from files (file), which the kernel can take away and read again.
    explanation: why it is no faster than its parent.
    smallest_claim_share: of the reference alone, the least difference that its device lets one claim (A/A).
    engine_auto: goal, kept (settings that differ from the variant's own), settings (all), reason, points (the grid's table).
    energy: source, scope, rate_hz, idle_w, mean_w, gross_mj, net_mj of one inference; energy_status says why where there is none.
    fits: by limit in MB: verdict, evidence, p50_ms, major_faults. sustained: minutes, start_p50_ms, end_p50_ms, drift, ...
    top_operators: what most of the time goes to, as in profile.json; operators_status says why where there are no times.
    """

    format: str
    scheme: str
    status: str
    reason: str | None = None
    size_bytes: int | None = None
    samples: int | None = None
    score: float | None = None
    score_delta: float | None = None
    score_delta_ci95: Interval = None
    score_verdict: str | None = None
    score_resolvable: float | None = None
    score_samples_needed: int | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    sqnr_db: float | None = None
    latency_p50_ms: float | None = None
    latency_p50_ci95_ms: Interval = None
    latency_p90_ms: float | None = None
    latency_p90_ci95_ms: Interval = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_ratio_to_reference: float | None = None
    latency_ratio_ci95: Interval = None
    latency_verdict: str | None = None
    latency_reason: str | None = None
    noise_grade: str | None = None
    noise_reason: str | None = None
    profile: str | None = None
    scope: str | None = None
    threads: int | None = None
    processes: int | None = None
    bench_samples: int | None = None
    device_fingerprint: str | None = None
    interleave: str | None = None
    governor: str | None = None
    emulated: bool | None = None
    on_device: Agreement | None = None
    cpus: tuple[int, ...] = ()
    load_ms: float | None = None
    first_inference_ms: float | None = None
    baseline_rss_bytes: int | None = None
    peak_rss_bytes: int | None = None
    peak_rss_above_baseline_bytes: int | None = None
    memory_rss_bytes: dict[str, int] | None = None
    memory_running_bytes: dict[str, int] | None = None
    weights_bytes_by_dtype: dict[str, int] | None = None
    covered_share: float | None = None
    kept_float: tuple[str, ...] = ()
    kept_int8: tuple[str, ...] = ()
    sqnr_to_source_db: float | None = None
    sqnr_as_written_db: float | None = None
    file_form: str | None = None
    file_release: str | None = None
    smallest_claim_share: float | None = None
    engine_auto: dict[str, Any] | None = None
    energy_status: str | None = None
    energy: dict[str, Any] | None = None
    fits: dict[str, dict[str, Any]] | None = None
    sustained: dict[str, Any] | None = None
    operators_status: str | None = None
    top_operators: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    explanation: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class Summary:
    """metrics/summary.json. aa_ratio_ci95: the reference against itself. `losers`: what each variant that was not chosen violates or
    leaves open, by name; headline: None where the task judges nothing."""

    reference: str
    device: dict[str, Any]
    variants: dict[str, VariantSummary]
    pareto: tuple[str, ...]
    chosen: str | None
    chosen_reason: str
    budget: Budget
    headline: Headline | None
    runners_up: tuple[str, ...] = ()
    losers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    nearest_miss: str | None = None
    aa_ratio_ci95: Interval = None
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def failed(self) -> dict[str, VariantSummary]:
        return {name: row for name, row in self.variants.items() if not row.ok}


def read(kind: type[R], path: Path) -> R | Failed:
    """The Evaluation or BenchResult in `path`, or the Failed that stands there. EdgewiseError where the file is no such record."""
    raw = _load(path)
    if raw.get("status") == "failed":
        return Failed(str(raw.get("reason")))
    names = {f.name for f in dataclasses.fields(kind)} - {"more"}  # type: ignore[arg-type]
    more = {key: value for key, value in raw.items() if key not in names | {"schema", "status"}}
    return _build(kind, {**{key: raw[key] for key in names & raw.keys()}, "more": more}, path)


def write(path: Path, record: Any) -> None:
    """Write an Evaluation, a BenchResult or a Failed as the JSON that `read` takes."""
    plain = to_plain(record)
    status = "failed" if isinstance(record, Failed) else "ok"
    write_json(path, {**plain.pop("more", {}), **plain, "schema": SCHEMA, "status": status})


def read_summary(path: Path = SUMMARY) -> Summary:
    raw = _load(path)
    names = score_names(_build(Headline, raw["headline"], path)) if raw.get("headline") else {}
    rows = {name: _fields(row, names) for name, row in raw.get("variants", {}).items()}
    return _build(Summary, {**raw, "variants": rows}, path)


def write_summary(summary: Summary, path: Path = SUMMARY) -> None:
    rows = {name: plain_row(row, summary.headline) for name, row in summary.variants.items()}
    write_json(path, {**to_plain(summary), "variants": rows})


SCORE_FIELDS = ("score", "score_delta", "score_delta_ci95", "score_verdict", "score_resolvable", "score_samples_needed")


def score_names(headline: Headline) -> dict[str, str]:
    """Field of VariantSummary -> its name in metrics: score_delta -> accuracy_delta."""
    return {**{field: field.replace("score", headline.stem, 1) for field in SCORE_FIELDS}, "score": headline.name}


def plain_row(row: VariantSummary, headline: Headline | None) -> dict[str, Any]:
    """A row as metrics hold it: the scores by their own names, beside all else. Nothing of the headline where there is none."""
    plain = to_plain(row)
    names = score_names(headline) if headline else dict.fromkeys(SCORE_FIELDS)
    scores = plain.pop("scores")
    named = {names.get(key, key): value for key, value in plain.items()}
    return {**{key: value for key, value in named.items() if key is not None}, **scores}


def _fields(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The inverse of `plain_row`: what is no field of a row is one of its scores."""
    back = {name: field for field, name in names.items()}
    known = {f.name for f in dataclasses.fields(VariantSummary)}
    given = {back.get(key, key): value for key, value in row.items()}
    scores = {key: value for key, value in given.items() if key not in known}
    return {**{key: value for key, value in given.items() if key in known}, "scores": scores}


def read_plain(path: Path) -> dict[str, Any]:
    """A JSON record without a type of its own here (metrics/device.json, data.json, train.json), its schema checked."""
    return _load(path)


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EdgewiseError(f"{path} does not exist: run `dvc repro` so that the stage that writes it runs") from None
    except json.JSONDecodeError as error:
        raise EdgewiseError(f"{path} is not JSON ({error}): delete it and run `dvc repro`") from None
    if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, Mapping) else type(raw).__name__
        raise EdgewiseError(f"{path} has schema {found}, this Edgewise reads {SCHEMA}: delete it and run `dvc repro`")
    return dict(raw)


def _build(kind: type[R], values: Mapping[str, Any], path: Path) -> R:
    try:
        return build(kind, values, str(path))
    except ConfigError as error:
        what = str(error).partition("; give it as")[0]
        raise EdgewiseError(f"{what}: delete {path} and run `dvc repro`, so that it is written again") from None
