"""One row for each variant: its files read, and its answers paired with the reference's, sample by sample."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from stages.core import artifact, results
from stages.core.config import Config, Plugin, Variant
from stages.core.errors import EdgewiseError
from stages.core.judging import Answers
from stages.core.plugins import Task
from stages.core.proof import sqnr_db
from stages.core.results import BenchResult, Evaluation, Failed, VariantSummary
from stages.core.settings import build
from stages.reporting import passes

MODELS = Path("models")
MEMORY_STEPS = ("baseline", "load", "first_inference", "peak", "release")
NOT_MEASURED = "not measured: the pipeline ran without bench-on-device"
EMULATED = "not measured: the device is emulated"


@dataclass(frozen=True)
class Judge:
    """The task with its settings."""

    task: Task
    settings: Any

    @classmethod
    def of(cls, plugin: Plugin) -> "Judge":
        module = cast(Task, plugin.load())
        return cls(module, build(module.Settings, plugin.settings, "task"))


def rows(config: Config) -> dict[str, VariantSummary]:
    """The rows of all configured variants, in the order of the configuration."""
    reference, judge = answers(config.reference), Judge.of(config.task)
    return {name: row(variant, config.reference, reference, judge) for name, variant in config.variants.items()}


def row(variant: Variant, reference_name: str, reference: Answers | None, judge: Judge) -> VariantSummary:
    made = artifact.read(MODELS / "variants" / variant.name)
    evaluated = results.read(Evaluation, results.METRICS / "evaluate" / f"{variant.name}.json")
    measured = bench(variant.name, reference_name)
    failures = [record.reason for record in (evaluated, measured) if isinstance(record, Failed)]
    summary = VariantSummary(
        format=variant.format,
        scheme=variant.scheme,
        status="failed" if failures else "ok",
        reason=failures[0] if failures else None,
        scores=dict.fromkeys(judge.task.SCORES),
        **({"size_bytes": made.size_bytes, **proof(made)} if made.ok else {}),
    )
    if isinstance(evaluated, Evaluation):
        summary = judged(summary, evaluated, judge)
        summary = paired(summary, answers(variant.name), reference, variant.name, judge)
    if isinstance(measured, BenchResult):
        return replace(summary, **latency(measured))
    return replace(summary, latency_reason=measured if isinstance(measured, str) else measured.reason)


def answers(name: str) -> Answers | None:
    """None where the variant failed before it could answer."""
    folder = MODELS / "evaluate" / name
    if not artifact.read(folder).ok:
        return None
    made = artifact.read(folder)
    return Answers(np.load(folder / "outputs.npy"), np.load(folder / "targets.npy"), made.labels, made.details)


def bench(name: str, reference: str) -> BenchResult | Failed | str:
    """The measurement, its failure, or in words why there is none that could be compared."""
    path = results.METRICS / "bench" / f"{name}.json"
    if not path.exists():
        return NOT_MEASURED
    record = results.read(BenchResult, path)
    if isinstance(record, BenchResult) and record.reference != reference:
        return f"measured against {record.reference}, the reference is {reference} now: run `dvc repro`"
    return record


def proof(made: artifact.Manifest) -> dict[str, Any]:
    """What the file really is, as `quantize` read it from the file."""
    details = made.details
    return {
        "weights_bytes_by_dtype": dict(details["facts"]["weights_bytes_by_dtype"]),
        "covered_share": details["covered_share"],
        "kept_float": tuple(details["kept_float"]),
        "kept_int8": tuple(details.get("kept_int8", ())),
        "sqnr_to_source_db": details.get("finished_sqnr_db", details["sqnr_db"]),
        "sqnr_as_written_db": details.get("sqnr_as_written_db"),
        "file_form": details.get("file", {}).get("form"),
        "file_release": details.get("file", {}).get("release"),
    }


def judged(row: VariantSummary, evaluated: Evaluation, judge: Judge) -> VariantSummary:
    """With the variant's own scores. EdgewiseError where it was judged by another task."""
    headline, known = judge.task.HEADLINE, evaluated.more
    if headline and headline.name not in known:
        raise EdgewiseError(f"metrics/evaluate has no {headline.name}: it was written for another task; run `dvc repro`")
    own = {name: known[name] for name in judge.task.SCORES if name in known}
    score = known[headline.name] if headline else None
    return replace(row, samples=evaluated.samples, size_bytes=evaluated.size_bytes, score=score, scores={**row.scores, **own})


def paired(row: VariantSummary, variant: Answers | None, reference: Answers | None, name: str, judge: Judge) -> VariantSummary:
    """With what the pair tells; as it is where the reference failed. EdgewiseError where the two were judged on different samples."""
    if variant is None or reference is None:
        return row
    if not np.array_equal(variant.targets, reference.targets):
        raise EdgewiseError(
            f"{name} and the reference were evaluated on different samples: run `dvc repro`, or evaluate@{name} with --force"
        )
    row = replace(row, sqnr_db=sqnr_db(reference.outputs, variant.outputs))
    found = judge.task.compare(judge.settings, reference, variant)
    if found is None:
        return row
    return replace(
        row,
        score_delta=found.delta,
        score_delta_ci95=found.delta_ci95,
        score_resolvable=found.resolvable,
        score_samples_needed=None if found.resolved else found.needed,
        scores={**row.scores, **found.scores},
    )


def latency(measured: BenchResult) -> dict[str, Any]:
    """The fields that the measurement and the row have in common, by name, and those that are named otherwise."""
    known = {f.name for f in fields(VariantSummary)} & {f.name for f in fields(BenchResult)} - {"samples"}
    return {
        **{name: getattr(measured, name) for name in known},
        "bench_samples": measured.samples,
        "latency_reason": EMULATED if measured.emulated else None,
        "noise_reason": measured.more.get("noise_reason"),
        "memory_rss_bytes": memory(measured),
        **passes.fields(measured),
    }


def memory(measured: BenchResult) -> dict[str, int] | None:
    """Resident bytes along the memory pass: baseline, load, first_inference, peak, release; None where it was left out."""
    if measured.baseline_rss_bytes is None or measured.peak_rss_bytes is None:
        return None
    steps = {step: measured.more.get(f"after_{step}_rss_bytes") for step in ("load", "first_inference", "release")}
    known = {"baseline": measured.baseline_rss_bytes, **steps, "peak": measured.peak_rss_bytes}
    return {step: size for step in MEMORY_STEPS if (size := known[step]) is not None}
