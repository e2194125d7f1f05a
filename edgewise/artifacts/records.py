"""The records in metrics/: what the stages measured, one small JSON file each, checked when read.

metrics/evaluate/V.json   Evaluation, or Failed
metrics/bench/V.json      BenchResult, or Failed
metrics/summary.json      Summary, written by `report` from all of the above

Keys name their units: _ms, _bytes, _mj, _w, _hz, _db, _degc; a _share lies between 0 and 1; a _ci95 is a 95 % interval, [low, high].
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgewise.artifacts.artifact import METRICS_SCHEMA, write_json
from edgewise.artifacts.pass_records import Energy as Energy
from edgewise.artifacts.pass_records import EnergyFigures as EnergyFigures
from edgewise.artifacts.pass_records import EngineAuto as EngineAuto
from edgewise.artifacts.pass_records import EnginePoint as EnginePoint
from edgewise.artifacts.pass_records import Interval as Interval
from edgewise.artifacts.pass_records import LimitedRun as LimitedRun
from edgewise.artifacts.pass_records import Memory as Memory
from edgewise.artifacts.pass_records import Operators as Operators
from edgewise.artifacts.pass_records import Sustained as Sustained
from edgewise.artifacts.visits import Trust as Trust
from edgewise.artifacts.visits import Visit as Visit
from edgewise.config.schema import Budget, Margins, to_plain
from edgewise.config.settings import build
from edgewise.errors import ConfigError, EdgewiseError
from edgewise.plugins import PrimaryMetric

SCHEMA = METRICS_SCHEMA
METRICS = Path("metrics")
SUMMARY = METRICS / "summary.json"
REPRO = "run `dvc repro`, which makes it again"

R = TypeVar("R")


@dataclass(frozen=True)
class Failed:
    """Stands in place of a record that cannot be made, for a reason that would occur again."""

    reason: str


@dataclass(frozen=True)
class Evaluation:
    """One variant on the whole test split. scores: of the task, by name. covered_share is None if the scheme covers nothing."""

    samples: int
    size_bytes: int
    covered_share: float | None = None
    scores: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditions:
    """How a variant was measured. profile, scope: of the section `bench`; interleave: what took turns with the reference.

    cpus: the cores that the process was allowed to use. emulated: the device is emulated, and nothing was timed.
    """

    profile: str
    scope: str
    threads: int
    device_fingerprint: str
    emulated: bool = False
    interleave: str | None = None
    governor: str | None = None
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """Outputs on the device against those of the same file on this machine, for the same test samples.

    verdict: identical (bit by bit) or within tolerance; a variant whose outputs differ by more is recorded as failed.
    same_predictions_share: of the samples with the same argmax; None if there is only one output.
    least_sqnr_db: the scheme's tolerance.
    """

    samples: int
    verdict: str
    same_predictions_share: float | None
    sqnr_db: float
    least_sqnr_db: float
    largest_difference: float


@dataclass(frozen=True)
class Latency:
    """The latency of one inference, of loading, and of the first inference. All None if nothing was timed.

    ratio_to_reference: variant / reference, interleaved. Intervals are None where the profile claims nothing; a quantile is None where
    too few samples were timed. samples: timed runs in so many processes. stop: why the measurement ended.
    smallest_claim_share: for the reference only, the smallest difference that can be claimed on its device (from A/A).
    """

    p50_ms: float | None = None
    p50_ci95_ms: Interval = None
    p90_ms: float | None = None
    p90_ci95_ms: Interval = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    reference_p50_ms: float | None = None
    ratio_to_reference: float | None = None
    ratio_ci95: Interval = None
    smallest_claim_share: float | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    samples: int | None = None
    processes: int | None = None
    stop: str | None = None


@dataclass(frozen=True)
class JudgedLatency(Latency):
    """Latency with the report's verdict: reference, or what stats.claims says (faster, slower, equivalent, not resolved, no claim);
    missing_reason: why there is none.

    ratio_to_reference, ratio_ci95: of all `visits` together; between_visits: whether the interval holds for other visits too, since
    `edgewise trust` has measured how far they lie apart. visit_ratio_ci95: of the last visit alone, which says nothing of others.
    real_time_factor: of a model with state, the time of a step over the time that it covers (model.step_ms).
    """

    visits: int | None = None
    visit_ratio_ci95: Interval = None
    between_visits: bool = False
    verdict: str | None = None
    real_time_factor: float | None = None
    missing_reason: str | None = None


@dataclass(frozen=True)
class NoiseEvidence:
    """Over the runs of both models; None if the device has no such sensor. See measure.results."""

    disturbed_share: float | None = None
    steal_share: float | None = None
    pressure_share: float | None = None
    frequency_drop: float | None = None
    temperature_max_degc: float | None = None
    process_spread: float | None = None
    quarter_drift: float | None = None
    throttled_share: float | None = None
    unsteady_share: float | None = None


@dataclass(frozen=True)
class Noise:
    """grade: clean, degraded or noisy; reason: the evidence that decided it, in words; None if it is clean. decided_by: its name."""

    grade: str
    reason: str | None = None
    evidence: NoiseEvidence = NoiseEvidence()
    decided_by: str | None = None


@dataclass(frozen=True)
class BenchResult:
    """One variant on the device, interleaved with the reference. What the profile leaves out is None. If the device is emulated, all
    but the agreement is: an emulator shows what a device computes, not what it costs. fits_mb: by memory limit, MB (2^20 bytes)."""

    variant: str
    reference: str
    conditions: Conditions
    agreement: Agreement | None = None
    latency: Latency = Latency()
    noise: Noise | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    fits_mb: dict[str, LimitedRun] | None = None
    sustained: Sustained | None = None
    engine_auto: EngineAuto | None = None
    visit: Visit | None = None


@dataclass(frozen=True)
class FileFacts:
    """form: how the file is stored, if not in its format's usual way; runtime_release: if the file runs with one release only; delegation:
    how many operators a delegate of the runtime takes, in words. multiply_adds: for one sample, of the source that it was made from, where
    they were counted; weights: elements of the file's constants with two or more dimensions."""

    size_bytes: int | None = None
    weights_bytes_by_dtype: dict[str, int] | None = None
    form: str | None = None
    runtime_release: str | None = None
    delegation: str | None = None
    multiply_adds: int | None = None
    weights: int | None = None


@dataclass(frozen=True)
class OutputAgreement:
    """One group of one output against the source's, for its probe samples. group: [0:4] ...; empty for the whole output."""

    output: str
    group: str
    sqnr_db: float
    largest_difference: float


@dataclass(frozen=True)
class Proof:
    """How far the file has the scheme. covered_share: of the weights; None if the scheme covers nothing.

    sqnr_to_source_db: of the outputs for the source's probe samples, the least over groups; outputs: each group, the one that agrees least
    first; sqnr_as_written_db: the least without fused integer kernels.
    """

    covered_share: float | None = None
    kept_float: tuple[str, ...] = ()
    kept_int8: tuple[str, ...] = ()
    tail: str | None = None  # what stays float behind the last layers, in words
    sqnr_to_source_db: float | None = None
    sqnr_as_written_db: float | None = None
    outputs: tuple[OutputAgreement, ...] = ()


@dataclass(frozen=True)
class Quality:
    """score: of the task's primary metric. delta: variant minus reference on the same samples; verdict: reference, or what stats.claims
    says of it (better, worse, equivalent, identical, not resolved).

    resolvable: the smallest difference that so many samples can show; samples_needed: how many would show the difference that was seen.
    scores: the task's other scores, by name. sqnr_db: the outputs against the reference's.
    """

    samples: int | None = None
    score: float | None = None
    delta: float | None = None
    delta_ci95: Interval = None
    verdict: str | None = None
    resolvable: float | None = None
    samples_needed: int | None = None
    sqnr_db: float | None = None
    scores: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VariantSummary:
    """All that is known of one variant; None is "not known". A failed one keeps what was measured before it failed.

    From `conditions` to `engine_auto`: as in its BenchResult. explanation: why it is not faster than its parent.
    """

    format: str
    scheme: str
    status: str
    reason: str | None = None
    file: FileFacts = FileFacts()
    proof: Proof = Proof()
    quality: Quality = Quality()
    latency: JudgedLatency = JudgedLatency()
    conditions: Conditions | None = None
    agreement: Agreement | None = None
    noise: Noise | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    fits_mb: dict[str, LimitedRun] | None = None
    sustained: Sustained | None = None
    engine_auto: EngineAuto | None = None
    operators: Operators | None = None
    warnings: tuple[str, ...] = ()
    explanation: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def energy_figures(self) -> EnergyFigures | None:
        return self.energy.figures if self.energy else None


@dataclass(frozen=True)
class Summary:
    """`aa_ratio_ci95`: the reference against itself. `losers`: what each variant that was not chosen violates or leaves open, by name.
    `primary_metric`: None where the task judges nothing."""

    reference: str
    device: dict[str, Any]
    variants: dict[str, VariantSummary]
    pareto: tuple[str, ...]
    chosen: str | None
    chosen_reason: str
    budget: Budget
    primary_metric: PrimaryMetric | None
    runners_up: tuple[str, ...] = ()
    losers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    nearest_miss: str | None = None
    aa_ratio_ci95: Interval = None
    margins: Margins = Margins()
    trust: Trust | None = None
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def failed(self) -> dict[str, VariantSummary]:
        return {name: row for name, row in self.variants.items() if not row.ok}


def read(kind: type[R], path: Path) -> R | Failed:
    """The Evaluation or BenchResult in `path`, or the Failed in its place. EdgewiseError if the file is not such a record."""
    raw = read_plain(path)
    if raw.get("status") == "failed":
        return Failed(str(raw.get("reason")))
    return _build(kind, {key: value for key, value in raw.items() if key not in ("schema", "status")}, str(path))


def write(path: Path, record: Evaluation | BenchResult | Failed) -> None:
    """Write a record as the JSON that `read` takes."""
    status = "failed" if isinstance(record, Failed) else "ok"
    write_json(path, {"schema": SCHEMA, "status": status, **to_plain(record)})


def read_summary(path: Path = SUMMARY) -> Summary:
    return summary_of(read_plain(path), str(path))


def summary_of(raw: Mapping[str, Any], where: str) -> Summary:
    """The content of a summary.json, checked. where: the file, for the message."""
    return _build(Summary, _known_schema(raw, where, REPRO), where)


def write_summary(summary: Summary, path: Path = SUMMARY) -> None:
    write_json(path, to_plain(summary))


def read_plain(path: Path, anew: str = REPRO) -> dict[str, Any]:
    """A JSON record without a type of its own here (metrics/device.json, data.json, train.json), its schema checked.

    anew: how to make it again, for the message of the EdgewiseError if it is missing, not JSON, or of another schema.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EdgewiseError(f"{path} does not exist: {anew}") from None
    except ValueError as error:  # of JSON, or of UTF-8
        raise EdgewiseError(f"{path} is not JSON ({error}): delete it and {anew}") from None
    return _known_schema(raw, str(path), anew)


def _known_schema(raw: Any, where: str, anew: str) -> dict[str, Any]:
    found = raw.get("schema") if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or found is None:
        raise EdgewiseError(f"{where} is not a record of Edgewise (a mapping with the key schema): delete it and {anew}")
    if found != SCHEMA:
        made = "an older release made it" if isinstance(found, int) and found < SCHEMA else "another release made it"
        raise EdgewiseError(
            f"{where} has schema {found}, this release reads schema {SCHEMA} ({made}): {anew}; if it stays, delete it first"
        )
    return dict(raw)


def _build(kind: type[R], values: Mapping[str, Any], where: str) -> R:
    try:
        return build(kind, values, where)
    except ConfigError as error:
        what = str(error).partition("; give it as")[0]
        raise EdgewiseError(f"{what}: delete {where} and {REPRO}") from None
