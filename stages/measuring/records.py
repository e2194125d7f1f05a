"""From raw runs to the record of a variant."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.core.config import Bench
from stages.core.results import BenchResult
from stages.core.timing_stats import median_interval, pooled, quantile, quantile_interval, ratio, ratio_interval
from stages.measuring.energy import energy_fields
from stages.measuring.grading import evidence, grade
from stages.measuring.jobs import Subject, check_limits
from stages.measuring.runs import Run, side
from stages.measuring.session import LEAST_PAIRS, Rounds
from stages.measuring.sustained import sustained_fields


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def memory_fields(run: Run) -> dict[str, Any]:
    """What the memory pass found, bytes. peak: since the imports, over load, runs and release; it includes the baseline.

    peak_reset false: the kernel would not reset the peak, so it may stand from the imports and overstate the model's need.
    """
    marks = {event["mark"]: event for event in run.all("memory")}
    at = {name: event["bytes"] for name, event in marks.items()}
    baseline, peak = at["baseline"]["rss"], at["release"]["peak"]
    return {
        "baseline_rss_bytes": baseline,
        "peak_rss_bytes": peak,
        "peak_rss_above_baseline_bytes": peak - baseline,
        "more": {
            "after_load_rss_bytes": at["load"]["rss"],
            "after_first_inference_rss_bytes": at["first_inference"]["rss"],
            "after_runs_anonymous_bytes": at["runs"]["anonymous"],
            "after_runs_file_bytes": at["runs"]["file"] + at["runs"]["shared"],
            "after_release_rss_bytes": at["release"]["rss"],
            "memory_peak_reset": marks["baseline"]["peak_reset"],
            "memory_major_faults": marks["release"]["major_faults"] - marks["baseline"]["major_faults"],
        },
    }


@dataclass(frozen=True)
class Passes:
    """What is measured beside latency, each in a process of its own; None where the profile leaves it out."""

    memory: Run | None = None
    energy: Run | None = None
    fits: tuple[Run, ...] = ()
    profile: Run | None = None

    @classmethod
    def measure(cls, variant: Subject, bench: Bench) -> "Passes":
        check_limits(bench.fits_mb)
        return cls(
            variant.memory() if bench.memory else None,
            variant.energy(bench.energy_s) if bench.energy_s else None,
            tuple(variant.fits(limit_mb) for limit_mb in bench.fits_mb),
            variant.profile() if bench.profile else None,
        )

    @property
    def runs(self) -> list[Run]:
        """Those whose events samples.json keeps; the profile has files of its own."""
        return [run for run in (self.memory, self.energy, *self.fits) if run]


def fits_fields(runs: Sequence[Run]) -> dict[str, Any]:
    """By limit in MB: the verdict (ok, oom, failed, not tested), and for ok the median and all major page faults at that limit."""
    told = {str(event["limit_bytes"] >> 20): event for event in (run.one("limited") for run in runs)}
    blocks = {
        limit: inner for limit, event in told.items() if event["verdict"] == "ok" for inner in event["events"] if inner["event"] == "block"
    }
    return {
        "fits_mb": {limit: event["verdict"] for limit, event in told.items()},
        "fits_evidence": {limit: f"{event['how']}: {event['evidence']}" for limit, event in told.items()},
        "fits_p50_ms": {limit: float(np.median(block["wall_ns"])) / 1e6 for limit, block in blocks.items()},
        "fits_major_faults": {limit: block["after"]["faults_major_count"] for limit, block in blocks.items()},
    }


def smallest_claim(aa_interval: tuple[float, float]) -> float:
    """What this device makes of no difference at all, as a share: nothing smaller can be claimed on it."""
    return max(1 / aa_interval[0], aa_interval[1]) - 1


def bench_result(rounds: Rounds, passes: Passes, bench: Bench, governor: str | None = None, **identity: Any) -> BenchResult:
    """identity: variant, reference, threads, device_fingerprint, emulated, on_device."""
    variant, reference = side(rounds.variant), side(rounds.reference)
    samples = pooled(variant)
    claims = bench.claims and len(variant) >= LEAST_PAIRS
    found = evidence(rounds.variant, rounds.reference)
    noise_grade, noise_reason = grade(found)
    occupied = memory_fields(passes.memory) if passes.memory else {"more": {}}
    more = {"noise_reason": noise_reason, **{f"noise_{name}": value for name, value in found.items()}, **occupied.pop("more")}
    if claims and identity["variant"] == identity["reference"]:
        more["smallest_claim_share"] = smallest_claim(ratio_interval(variant, reference))
    more |= energy_fields(passes.energy) if passes.energy else {}
    more |= fits_fields(passes.fits) if passes.fits else {}
    more |= sustained_fields(rounds) | {
        "cpus": rounds.variant[0].one("hello")["cpus"],
        "governor": governor,
        "interleave": bench.interleave,
    }
    return BenchResult(
        profile=bench.name,
        scope=bench.scope,
        latency_p50_ms=float(np.median(samples)),
        latency_p50_ci95_ms=median_interval(variant) if claims else None,
        latency_p90_ms=quantile(samples, 0.90),
        latency_p90_ci95_ms=quantile_interval(variant, 0.90) if claims and quantile(samples, 0.90) is not None else None,
        latency_p95_ms=quantile(samples, 0.95),
        latency_p99_ms=quantile(samples, 0.99),
        reference_p50_ms=float(np.median(pooled(reference))),
        latency_ratio_to_reference=ratio(variant, reference),
        latency_ratio_ci95=ratio_interval(variant, reference) if claims else None,
        stop=rounds.stop,
        processes=len(variant),
        samples=len(samples),
        noise_grade=noise_grade,
        load_ms=_median(run.load_ms for run in rounds.variant),
        first_inference_ms=_median(run.first_inference_ms for run in rounds.variant),
        more=more,
        **occupied,
        **identity,
    )
