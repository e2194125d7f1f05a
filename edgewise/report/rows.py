"""One row for each variant: its files read, its predictions compared with the reference's sample by sample, its latency over all visits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from edgewise.artifacts import artifact, records, targets
from edgewise.artifacts.records import (
    BenchResult,
    Evaluation,
    Failed,
    FileFacts,
    JudgedLatency,
    OutputAgreement,
    Proof,
    Quality,
    Trust,
    VariantSummary,
    Visit,
)
from edgewise.config.schema import Config, Plugin, Variant
from edgewise.config.settings import build
from edgewise.errors import EdgewiseError
from edgewise.measure.collecting import to_measured
from edgewise.plugins import Decisions, Predictions, Task
from edgewise.report import explain
from edgewise.report.verdicts import Rows
from edgewise.stats.agreement import compare_groups, sqnr_db, worst_of
from edgewise.stats.paired import of_same_outputs
from edgewise.stats.random_effects import Measured, Spread, between_visits, measured_from_interval, pool
from edgewise.tasks.predictions import are_same, count_samples, read_predictions

MODELS = Path("models")
NOT_MEASURED = "not measured: the pipeline ran without bench-on-device"
EMULATED = "not measured: the device is emulated"


@dataclass(frozen=True)
class Judge:
    """A task plugin with its settings."""

    task: Task
    settings: Any

    @classmethod
    def of(cls, plugin: Plugin) -> "Judge":
        module = cast(Task, plugin.load())
        return cls(module, build(module.Settings, plugin.settings, "task"))


def read_data_notes() -> tuple[str, ...]:
    """What the user should know about the data, as prepare-data has told it."""
    if not (MODELS / "data" / artifact.MANIFEST).exists():  # a clone in which nothing has run yet
        return ()
    return tuple(artifact.read(MODELS / "data").details.get("notes", ()))


def read_rows(config: Config) -> dict[str, VariantSummary]:
    """The rows of all configured variants, in the order of the configuration."""
    reference, judge = read_predictions(MODELS / "evaluate" / config.reference), Judge.of(config.task)
    return {name: read_row(variant, config.reference, reference, judge) for name, variant in config.variants.items()}


def read_row(variant: Variant, reference_name: str, reference: Predictions | None, judge: Judge) -> VariantSummary:
    """The row of one variant. reference: its predictions, None where it failed."""
    made = artifact.read(MODELS / "variants" / variant.name)
    evaluated = records.read(Evaluation, records.METRICS / "evaluate" / f"{variant.name}.json")
    measured = read_bench(variant.name, reference_name)
    failures = [record.reason for record in (evaluated, measured) if isinstance(record, Failed)]
    summary = VariantSummary(
        format=variant.format,
        scheme=variant.scheme,
        status="failed" if failures else "ok",
        reason=failures[0] if failures else None,
        file=read_file_facts(made) if made.ok else FileFacts(),
        proof=read_proof(made, variant.name) if made.ok else Proof(),
        quality=Quality(scores=dict.fromkeys(judge.task.SCORES)),
    )
    if isinstance(evaluated, Evaluation):
        summary = add_scores(summary, evaluated, judge)
        summary = add_comparison(summary, read_predictions(MODELS / "evaluate" / variant.name), reference, variant.name, judge)
    if isinstance(measured, BenchResult):
        return add_measurement(summary, measured, made.details.get("step_ms"))
    return replace(summary, latency=JudgedLatency(missing_reason=measured if isinstance(measured, str) else measured.reason))


def read_bench(name: str, reference: str) -> BenchResult | Failed | str:
    """The measurement, its failure, or the reason why there is none that can be compared."""
    path = records.METRICS / "bench" / f"{name}.json"
    if not path.exists():
        return NOT_MEASURED
    record = records.read(BenchResult, path)
    if isinstance(record, BenchResult) and record.reference != reference:
        return f"measured against {record.reference}, the reference is {reference} now: run `dvc repro`"
    return record


def read_file_facts(made: artifact.Manifest) -> FileFacts:
    """Size, weights and form of the variant, as `quantize` read them from its file."""
    written, facts = made.details.get("file", {}), made.details["facts"]
    weights, delegated = dict(facts["weights_bytes_by_dtype"]), facts.get("delegation")
    words = describe_delegation(delegated) if delegated else None
    return FileFacts(
        made.size_bytes,
        weights,
        form=written.get("form"),
        runtime_release=written.get("release"),
        delegation=words,
        multiply_adds=made.details.get("multiply_adds"),
        weights=facts.get("weights_elements"),
    )


def describe_delegation(found: Mapping[str, Any]) -> str:
    """58 of 60 operators in XNNPACK, in 2 calls; not cumsum (2). found: `delegation` of a format's facts."""
    left = ", ".join(f"{operator} ({count})" if count > 1 else operator for operator, count in found["left"].items())
    calls = f"{found['calls']} call{'s' if found['calls'] != 1 else ''}"
    return f"{found['delegated']} of {found['operators']} operators in {found['delegate']}, in {calls}" + (f"; not {left}" if left else "")


def read_proof(made: artifact.Manifest, name: str) -> Proof:
    """How much of the scheme the file holds, as `quantize` found it."""
    details = made.details
    return Proof(
        covered_share=details["covered_share"],
        kept_float=tuple(details["kept_float"]),
        kept_int8=tuple(details.get("kept_int8", ())),
        tail=explain.describe_tail(name, details["tail"]) if "tail" in details else None,
        sqnr_to_source_db=details.get("finished_sqnr_db", details["sqnr_db"]),
        sqnr_as_written_db=details.get("sqnr_as_written_db"),
        outputs=tuple(OutputAgreement(**entry) for entry in details["agreement"]),
    )


def read_decisions(name: str, task: Task) -> Decisions | None:
    """Which samples the variant gets right; None where it failed, or where the task has no right and wrong."""
    found = read_predictions(MODELS / "evaluate" / name)
    return task.decide(found) if found else None


def add_scores(row: VariantSummary, evaluated: Evaluation, judge: Judge) -> VariantSummary:
    """The row with the variant's own scores. Raises EdgewiseError where it was judged by another task."""
    metric, scores = judge.task.PRIMARY_METRIC, evaluated.scores
    if metric and not metric.relative and metric.name not in scores:
        raise EdgewiseError(f"metrics/evaluate has no {metric.name}, it was written for another task: run `dvc repro`")
    own = {name: scores[name] for name in judge.task.SCORES if name in scores}
    score = scores[metric.name] if metric and not metric.relative else None
    quality = replace(row.quality, samples=evaluated.samples, score=score, scores={**row.quality.scores, **own})
    return replace(row, file=replace(row.file, size_bytes=evaluated.size_bytes), quality=quality)


def add_comparison(
    row: VariantSummary, variant: Predictions | None, reference: Predictions | None, name: str, judge: Judge
) -> VariantSummary:
    """The row with its comparison to the reference; unchanged where either failed. Raises EdgewiseError where the samples differ."""
    if variant is None or reference is None:
        return row
    if count_samples(dict(variant.ports)) != count_samples(dict(reference.ports)) or not targets.are_same(
        variant.targets, reference.targets
    ):
        raise EdgewiseError(
            f"{name} and the reference were evaluated on different samples: run `dvc repro`, or evaluate@{name} with --force"
        )
    quality = replace(row.quality, sqnr_db=agreement_db(reference, variant, judge.task))
    found = judge.task.compare(judge.settings, reference, variant)
    if found is None:
        return replace(row, quality=quality)
    found = of_same_outputs(found) if are_same(reference, variant) else found
    relative = judge.task.PRIMARY_METRIC is not None and judge.task.PRIMARY_METRIC.relative
    quality = replace(
        quality,
        score=1 + found.delta if relative else quality.score,
        delta=found.delta,
        delta_ci95=found.delta_ci95,
        resolvable=found.resolvable,
        samples_needed=None if found.resolved else found.needed,
        scores={**quality.scores, **found.scores},
    )
    return replace(row, quality=quality)


def agreement_db(reference: Predictions, variant: Predictions, task: Task) -> float | None:
    """SQNR of the outputs on the test samples, in dB: of the scores, or where the task judges none, of the group that agrees least. None
    where the task keeps something else than outputs."""
    if "counts" in variant.ports:
        return None
    if task.SCORED:
        return sqnr_db(reference.outputs, variant.outputs)
    return worst_of(compare_groups(reference.ports, variant.ports)).sqnr_db


def add_measurement(row: VariantSummary, measured: BenchResult, step_ms: float | None) -> VariantSummary:
    """The row with the records of its measurement and of its operator profile. step_ms: what one step of a model with state covers."""
    latency, why = measured.latency, EMULATED if measured.conditions.emulated else None
    factor = latency.p50_ms / step_ms if step_ms and latency.p50_ms is not None else None
    return replace(
        row,
        latency=JudgedLatency(**vars(latency), missing_reason=why, real_time_factor=factor),
        conditions=measured.conditions,
        agreement=measured.agreement,
        noise=measured.noise,
        memory=measured.memory,
        energy=measured.energy,
        fits_mb=measured.fits_mb,
        sustained=measured.sustained,
        engine_auto=measured.engine_auto,
        operators=explain.read_operators(measured.variant),
    )


def pool_rows(rows: Rows, visits: Mapping[str, Sequence[Visit]], trust: Trust | None, reference: str) -> dict[str, VariantSummary]:
    """The rows with the ratio and interval of all visits. visits: of each variant, of metrics/visits.json."""
    return {name: pool_row(row, visits.get(name, ()), trust, name, itself=name == reference) for name, row in rows.items()}


def pool_row(row: VariantSummary, visits: Sequence[Visit], trust: Trust | None, name: str = "", itself: bool = False) -> VariantSummary:
    """One row; as it was where it has no interval. itself: the reference against itself, which no movement of the device changes."""
    latency = row.latency
    if latency.ratio_to_reference is None or latency.ratio_ci95 is None or not latency.processes or latency.processes < 2:
        return row
    measured = [to_measured(visit) for visit in visits] or [read_visit(latency)]
    known = trust is not None and row.conditions is not None and row.conditions.device_fingerprint == trust.fingerprint
    told = replace(latency, visits=len(measured), visit_ratio_ci95=latency.ratio_ci95, between_visits=known)
    if len(measured) == 1 and (itself or not known):
        return replace(row, latency=told)
    estimate = pool(measured, find_spread(measured, None if itself or not known else trust, name))
    return replace(row, latency=replace(told, ratio_to_reference=estimate.ratio, ratio_ci95=estimate.interval()))


def read_visit(latency: JudgedLatency) -> Measured:
    """The visit of a record that came without one."""
    assert latency.ratio_to_reference is not None and latency.ratio_ci95 is not None and latency.processes is not None
    low, high = latency.ratio_ci95
    return measured_from_interval(latency.ratio_to_reference, (low, high), latency.processes)


def find_spread(measured: Sequence[Measured], trust: Trust | None, name: str) -> Spread | None:
    """The variant's own where it was visited often enough, else that of the device's study; without trust that of these visits, which then
    says nothing of others."""
    if trust is None:
        return between_visits([measured])
    known = trust.own.get(name, trust)
    return Spread(known.log_variance, known.degrees)
