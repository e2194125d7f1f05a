"""One row for each variant: its files read, and its answers paired with the reference's, sample by sample."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import artifact, paired_stats, results
from stages.core.config import Config, Variant
from stages.core.errors import EdgewiseError
from stages.core.results import BenchResult, Evaluation, Failed, VariantSummary
from stages.reporting import passes

MODELS = Path("models")
MEMORY_STEPS = ("baseline", "load", "first_inference", "peak", "release")
NOT_MEASURED = "not measured: the pipeline ran without bench-on-device"
EMULATED = "not measured: the device is emulated"


@dataclass(frozen=True)
class Answers:
    """What a variant answered: logits [samples, classes] in the order of the test split, and the targets [samples]."""

    outputs: np.ndarray
    targets: np.ndarray


def rows(config: Config) -> dict[str, VariantSummary]:
    """The rows of all configured variants, in the order of the configuration."""
    reference = answers(config.reference)
    return {name: row(variant, config.reference, reference) for name, variant in config.variants.items()}


def row(variant: Variant, reference_name: str, reference: Answers | None) -> VariantSummary:
    made = artifact.read(MODELS / "variants" / variant.name)
    evaluated = results.read(Evaluation, results.METRICS / "evaluate" / f"{variant.name}.json")
    measured = bench(variant.name, reference_name)
    failures = [record.reason for record in (evaluated, measured) if isinstance(record, Failed)]
    summary = VariantSummary(
        format=variant.format,
        scheme=variant.scheme,
        status="failed" if failures else "ok",
        reason=failures[0] if failures else None,
        **({"size_bytes": made.size_bytes, **proof(made)} if made.ok else {}),
    )
    if isinstance(evaluated, Evaluation):
        summary = replace(summary, **scores(evaluated), **pairing(answers(variant.name), reference, variant.name))
    if isinstance(measured, BenchResult):
        return replace(summary, **latency(measured))
    return replace(summary, latency_reason=measured if isinstance(measured, str) else measured.reason)


def answers(name: str) -> Answers | None:
    """None where the variant failed before it could answer."""
    folder = MODELS / "evaluate" / name
    if not artifact.read(folder).ok:
        return None
    return Answers(np.load(folder / "outputs.npy"), np.load(folder / "targets.npy"))


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
        "sqnr_to_source_db": details["sqnr_db"],
    }


def scores(evaluated: Evaluation) -> dict[str, Any]:
    return {name: getattr(evaluated, name) for name in ("samples", "accuracy_top1", "accuracy_balanced", "macro_f1", "size_bytes")}


def pairing(variant: Answers | None, reference: Answers | None, name: str) -> Mapping[str, Any]:
    """The paired fields; none where the reference failed. EdgewiseError where the two were judged on different samples."""
    if variant is None or reference is None:
        return {}
    if not np.array_equal(variant.targets, reference.targets):
        raise EdgewiseError(
            f"{name} and the reference were evaluated on different samples: run `dvc repro`, or evaluate@{name} with --force"
        )
    found = paired_stats.compare(reference.outputs, variant.outputs, reference.targets)
    return {
        "accuracy_delta": found.delta,
        "accuracy_delta_ci95": found.delta_ci95,
        "accuracy_resolvable": found.resolvable,
        "accuracy_samples_needed": None if found.resolved else found.samples_needed,
        "flips_gained": found.gained,
        "flips_lost": found.lost,
        "mcnemar_p": found.mcnemar_p,
        "agreement": found.agreement,
        "sqnr_db": found.sqnr_db,
        "kl_nats": found.kl_nats,
    }


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
