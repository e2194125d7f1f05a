"""From raw runs to the record of a variant."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgewise.artifacts.records import Agreement, BenchResult, Conditions, Latency, LimitedRun, Memory, Noise, NoiseEvidence
from edgewise.config.schema import Bench
from edgewise.measure.grading import evidence, grade
from edgewise.measure.pairs import LEAST_PAIRS, Rounds
from edgewise.measure.passes import energy_of, sustained
from edgewise.measure.subjects import Event, Run, Subject, check_limits, side
from edgewise.stats.timing import median_interval, pooled, quantile, quantile_interval, ratio, ratio_interval


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def memory_of(run: Run) -> Memory:
    """What the memory pass found."""
    marks = {event["mark"]: event for event in run.all("memory")}
    at = {name: event["bytes"] for name, event in marks.items()}
    baseline, peak = at["baseline"]["rss"], at["release"]["peak"]
    return Memory(
        baseline_rss_bytes=baseline,
        after_load_rss_bytes=at["load"]["rss"],
        after_first_inference_rss_bytes=at["first_inference"]["rss"],
        peak_rss_bytes=peak,
        peak_rss_above_baseline_bytes=peak - baseline,
        after_release_rss_bytes=at["release"]["rss"],
        running_anonymous_bytes=at["runs"]["anonymous"],
        running_file_bytes=at["runs"]["file"] + at["runs"]["shared"],
        peak_reset=marks["baseline"]["peak_reset"],
        major_faults=marks["release"]["major_faults"] - marks["baseline"]["major_faults"],
    )


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


def limited_runs(runs: Sequence[Run]) -> dict[str, LimitedRun]:
    """By limit in MB (2^20 bytes)."""
    events = [run.one("limited") for run in runs]
    return {str(event["limit_bytes"] >> 20): limited_run(event) for event in events}


def limited_run(event: Event) -> LimitedRun:
    """For ok with the median and all major page faults at that limit."""
    told = LimitedRun(event["verdict"], f"{event['how']}: {event['evidence']}")
    block = next((inner for inner in event.get("events", ()) if inner["event"] == "block"), None)
    if told.verdict != "ok" or block is None:
        return told
    return replace(told, p50_ms=float(np.median(block["wall_ns"])) / 1e6, major_faults=block["after"]["faults_major_count"])


def smallest_claim(aa_interval: tuple[float, float]) -> float:
    """What this device makes of no difference at all, as a share: nothing smaller can be claimed on it."""
    return max(1 / aa_interval[0], aa_interval[1]) - 1


def bench_result(rounds: Rounds, passes: Passes, bench: Bench, agreement: Agreement | None = None, **identity: Any) -> BenchResult:
    """identity: variant, reference, and of the conditions threads, device_fingerprint, governor."""
    names = {name: identity.pop(name) for name in ("variant", "reference")}
    return BenchResult(
        **names,
        conditions=conditions(bench, cpus=tuple(rounds.variant[0].one("hello")["cpus"]), **identity),
        agreement=agreement,
        latency=latency(rounds, bench, itself=names["variant"] == names["reference"]),
        noise=noise(rounds),
        memory=memory_of(passes.memory) if passes.memory else None,
        energy=energy_of(passes.energy) if passes.energy else None,
        fits_mb=limited_runs(passes.fits) if passes.fits else None,
        sustained=sustained(rounds),
    )


def conditions(bench: Bench, **known: Any) -> Conditions:
    return Conditions(profile=bench.name, scope=bench.scope, interleave=bench.interleave, **known)


def noise(rounds: Rounds) -> Noise:
    found = evidence(rounds.variant, rounds.reference)
    return Noise(*grade(found), NoiseEvidence(**found))


def latency(rounds: Rounds, bench: Bench, itself: bool = False) -> Latency:
    """itself: the reference against itself, which tells the smallest difference that this device lets one claim."""
    variant, reference = side(rounds.variant), side(rounds.reference)
    samples = pooled(variant)
    claims = bench.claims and len(variant) >= LEAST_PAIRS
    p90_ms, ratio_ci95 = quantile(samples, 0.90), ratio_interval(variant, reference) if claims else None
    return Latency(
        p50_ms=quantile(samples, 0.50),
        p50_ci95_ms=median_interval(variant) if claims else None,
        p90_ms=p90_ms,
        p90_ci95_ms=quantile_interval(variant, 0.90) if claims and p90_ms is not None else None,
        p95_ms=quantile(samples, 0.95),
        p99_ms=quantile(samples, 0.99),
        reference_p50_ms=quantile(pooled(reference), 0.50),
        ratio_to_reference=ratio(variant, reference),
        ratio_ci95=ratio_ci95,
        smallest_claim_share=smallest_claim(ratio_ci95) if ratio_ci95 and itself else None,
        load_ms=_median(run.load_ms for run in rounds.variant),
        first_inference_ms=_median(run.first_inference_ms for run in rounds.variant),
        samples=len(samples),
        processes=len(variant),
        stop=rounds.stop,
    )
