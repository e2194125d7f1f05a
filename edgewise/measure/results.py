"""Turn the raw runs of a variant into its BenchResult, minute by minute where they lasted for minutes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgewise.artifacts.records import Agreement, BenchResult, Conditions, Latency, Noise, NoiseEvidence, Sustained
from edgewise.config.schema import Bench
from edgewise.measure.grading import find_worst, gather_evidence, grade, is_throttled, read_values
from edgewise.measure.pairs import MIN_PAIRS, PairedRuns
from edgewise.measure.passes import Passes, make_energy, make_limited_runs, make_memory
from edgewise.measure.runs import Event, Run, blocks_by_process
from edgewise.stats.timing import median_interval, median_ratio, pool_samples, quantile, quantile_interval, ratio_interval

MINUTE_S = 60.0
MIN_MINUTES = 2  # a first and a last one
SLOW_CLOCK = 0.90  # of the first minute's frequency: the steps of a governor are smaller


def make_bench_result(pairs: PairedRuns, passes: Passes, bench: Bench, agreement: Agreement | None = None, **identity: Any) -> BenchResult:
    """The record of a variant. identity: variant, reference, and of the conditions threads, device_fingerprint and governor."""
    names = {name: identity.pop(name) for name in ("variant", "reference")}
    return BenchResult(
        **names,
        conditions=make_conditions(bench, cpus=tuple(pairs.variant[0].one("hello")["cpus"]), **identity),
        agreement=agreement,
        latency=make_latency(pairs, bench, itself=names["variant"] == names["reference"]),
        noise=grade_noise(pairs),
        memory=make_memory(passes.memory) if passes.memory else None,
        energy=make_energy(passes.energy) if passes.energy else None,
        fits_mb=make_limited_runs(passes.fits) if passes.fits else None,
        sustained=make_sustained(pairs),
    )


def make_conditions(bench: Bench, **known: Any) -> Conditions:
    return Conditions(profile=bench.name, scope=bench.scope, interleave=bench.interleave, **known)


def grade_noise(pairs: PairedRuns) -> Noise:
    found = gather_evidence(pairs.variant, pairs.reference)
    level, name = find_worst(found)
    return Noise(*grade(found), NoiseEvidence(**found), name if level else None)


def make_latency(pairs: PairedRuns, bench: Bench, itself: bool = False) -> Latency:
    """The record of the latency runs. itself: the reference was measured against itself (A/A), which gives the smallest difference that
    can be claimed on this device. Intervals are None if the profile claims nothing or there are fewer than MIN_PAIRS pairs."""
    variant, reference = blocks_by_process(pairs.variant), blocks_by_process(pairs.reference)
    samples = pool_samples(variant)
    claims = bench.claims and len(variant) >= MIN_PAIRS
    p90_ms, ratio_ci95 = quantile(samples, 0.90), ratio_interval(variant, reference) if claims else None
    return Latency(
        p50_ms=quantile(samples, 0.50),
        p50_ci95_ms=median_interval(variant) if claims else None,
        p90_ms=p90_ms,
        p90_ci95_ms=quantile_interval(variant, 0.90) if claims and p90_ms is not None else None,
        p95_ms=quantile(samples, 0.95),
        p99_ms=quantile(samples, 0.99),
        reference_p50_ms=quantile(pool_samples(reference), 0.50),
        ratio_to_reference=median_ratio(variant, reference),
        ratio_ci95=ratio_ci95,
        smallest_claim_share=smallest_claim_share(ratio_ci95) if ratio_ci95 and itself else None,
        load_ms=_median(run.load_ms for run in pairs.variant),
        first_inference_ms=_median(run.first_inference_ms for run in pairs.variant),
        samples=len(samples),
        processes=len(variant),
        stop=pairs.stop,
    )


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def smallest_claim_share(aa_interval: tuple[float, float]) -> float:
    """The larger end of the A/A ratio's interval, as a share: no smaller difference can be claimed on this device."""
    return max(1 / aa_interval[0], aa_interval[1]) - 1


def make_sustained(pairs: PairedRuns) -> Sustained | None:
    """First and last minute of the first pair, by which variants can be ranked before and after minutes of load. None for shorter runs."""
    variant, reference = summarize_minutes(pairs.variant[0]), summarize_minutes(pairs.reference[0])
    if min(len(variant), len(reference)) < MIN_MINUTES:
        return None
    start, end = variant[0]["median_ms"], variant[-1]["median_ms"]
    return Sustained(
        minutes=len(variant),
        start_p50_ms=start,
        end_p50_ms=end,
        drift=end / start - 1,
        ratio_start=start / reference[0]["median_ms"],
        ratio_end=end / reference[-1]["median_ms"],
        throttled_from_minute=find_throttling_minute(variant),
        temperature_max_degc=max((m["temperature_degc"] for m in variant if m["temperature_degc"] is not None), default=None),
    )


def summarize_minutes(run: Run) -> list[dict[str, Any]]:
    """One entry for each minute of a process: median_ms and, where there are sensors, temperature_degc, frequency_mhz, throttled."""
    blocks = run.all("block")
    ends_s = np.cumsum([sum(block["wall_ns"]) / 1e9 for block in blocks])
    minutes: dict[int, list[Event]] = {}
    for block, end_s in zip(blocks, ends_s, strict=True):
        minutes.setdefault(int((end_s - 1e-9) // MINUTE_S), []).append(block)
    return [{"minute": minute, **_summarize_blocks(blocks_of)} for minute, blocks_of in minutes.items()]


def _summarize_blocks(blocks: Sequence[Event]) -> dict[str, Any]:
    degrees = [value / 1000 for block in blocks for value in read_values(block, "_mdegc")]
    clocks = [value / 1000 for block in blocks for value in read_values(block, "_khz")]
    verdicts = [is_throttled(block) for block in blocks]
    return {
        "median_ms": float(np.median(np.concatenate([block["wall_ns"] for block in blocks]))) / 1e6,
        "temperature_degc": max(degrees, default=None),
        "frequency_mhz": float(np.mean(clocks)) if clocks else None,
        "throttled": None if None in verdicts else any(verdicts),
    }


def find_throttling_minute(minutes: Sequence[dict[str, Any]]) -> int | None:
    """The first minute in which the firmware reports throttling or the clock is below SLOW_CLOCK of the first minute's; None without."""
    first_mhz = minutes[0]["frequency_mhz"]
    for entry in minutes:
        slow = first_mhz is not None and entry["frequency_mhz"] is not None and entry["frequency_mhz"] < SLOW_CLOCK * first_mhz
        if entry["throttled"] or slow:
            return int(entry["minute"])
    return None
