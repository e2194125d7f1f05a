"""Turn the raw runs of a variant into its BenchResult, minute by minute where they lasted for minutes, and grade how much the measurement
was disturbed: clean, degraded or noisy, with the evidence.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgewise.artifacts.records import Agreement, BenchResult, Conditions, Latency, Noise, NoiseEvidence, Sustained
from edgewise.config.schema import Bench
from edgewise.measure.pairs import MIN_PAIRS, PairedRuns
from edgewise.measure.passes import Passes, make_energy, make_limited_runs, make_memory
from edgewise.measure.runs import Event, Run, blocks_by_process
from edgewise.stats.timing import median_interval, median_ratio, pool_samples, quantile, quantile_interval, ratio_interval

MINUTE_S = 60.0
MIN_MINUTES = 2  # a first and a last one
SLOW_CLOCK = 0.90  # of the first minute's frequency: the steps of a governor are smaller
GRADES = ("clean", "degraded", "noisy")
NO_WAITING = "this kernel does not count how long a thread waits for a processor (/proc/thread-self/schedstat)"
THROTTLED_NOW, THROTTLED_SINCE_BOOT = 0xF, 0xF0000  # low voltage, capped, throttled, soft limit
WAITED_SHARE = 0.01  # a run that waited for longer than this share of its time counts as disturbed

# evidence -> (clean up to, noisy above, its words in the reason)
LIMITS = {
    # at 30 % of disturbed runs their median is the 71st percentile of the undisturbed ones
    "disturbed_share": (0.10, 0.30, "of the runs waited for a processor"),
    "steal_share": (0.01, 0.05, "of the time was taken by the hypervisor"),
    "frequency_drop": (0.02, 0.10, "lower frequency in the slowest block than in the fastest"),
    # contention for caches and for sibling threads is in no counter, but differs between processes
    "process_spread": (0.05, 0.20, "between the middle half of the processes"),
    "unsteady_share": (0.50, 1.00, "of the processes never settled in their warm-up"),
    "quarter_drift": (0.03, 0.10, "slower in the last quarter of a run than in the first"),
    "throttled_share": (0.00, 0.00, "of the blocks ran throttled, according to the firmware"),
}


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


def grade(found: dict[str, float | None]) -> tuple[str, str | None]:
    """The worst grade over all evidence and the reason for it. Without a clock for waiting the grade is at best degraded."""
    level, name = find_worst(found)
    if found["disturbed_share"] is None and level == 0:
        return "degraded", NO_WAITING
    return GRADES[level], f"{100 * (found[name] or 0.0):.3g} % {LIMITS[name][2]}" if level else None


def find_worst(found: dict[str, float | None]) -> tuple[int, str]:
    """The index in GRADES and the evidence that decides it; an empty name where there is none."""
    return max([(_find_level(name, found[name]), name) for name in LIMITS if found.get(name) is not None], default=(0, ""))


def _find_level(name: str, value: float | None) -> int:
    clean, noisy, _ = LIMITS[name]
    return int((value or 0.0) > clean) + int((value or 0.0) > noisy)


def gather_evidence(variant: Sequence[Run], reference: Sequence[Run]) -> dict[str, float | None]:
    """Shares between 0 and 1 over the runs of both models, by the names of NoiseEvidence; None where the device has no such sensor."""
    runs = [*variant, *reference]
    blocks = [block for run in runs for block in run.all("block")]
    return {
        "disturbed_share": _disturbed_share(blocks),
        "steal_share": _share_of_time(blocks, "steal_ns", 1.0),
        "pressure_share": _share_of_time(blocks, "pressure_cpu_some_us", 1e3),
        "frequency_drop": _frequency_drop(blocks),
        "temperature_max_degc": _temperature_max(blocks),
        "process_spread": max(_process_spread(variant), _process_spread(reference)),
        "quarter_drift": float(np.median([_quarter_drift(run) for run in runs])),
        "throttled_share": _throttled_share(blocks),
        "unsteady_share": float(np.mean([not run.steady for run in runs])),
    }


def _disturbed_share(blocks: Iterable[Event]) -> float | None:
    """Share of the timed runs that spent more than WAITED_SHARE of their time in the run queue."""
    pairs = [(block["wait_ns"], block["wall_ns"]) for block in blocks]
    if any(wait is None for wait, _ in pairs):
        return None
    waited, wall = (np.concatenate([np.array(pair[i], float) for pair in pairs]) for i in (0, 1))
    return float(np.mean(waited > WAITED_SHARE * wall))


def _share_of_time(blocks: Sequence[Event], name: str, factor: float) -> float | None:
    """Growth of a counter over the blocks, times `factor`, as a share of the blocks' time (ns)."""
    grown = [_growth(block, name) for block in blocks]
    if any(value is None for value in grown):
        return None
    return factor * sum(value or 0.0 for value in grown) / sum(sum(block["wall_ns"]) for block in blocks)


def _growth(block: Event, name: str) -> float | None:
    before, after = block["before"].get(name), block["after"].get(name)
    return None if before is None or after is None else after - before


def _frequency_drop(blocks: Iterable[Event]) -> float | None:
    means = [np.mean(values) for values in (read_values(block, "_khz") for block in blocks) if any(values)]  # 0: a clock that tells nothing
    return float(1 - min(means) / max(means)) if means else None


def _temperature_max(blocks: Iterable[Event]) -> float | None:
    values = [value for block in blocks for value in read_values(block, "_mdegc")]
    return max(values) / 1000 if values else None


def _process_spread(runs: Sequence[Run]) -> float:
    """Interquartile range of the processes' medians, as a share of their median."""
    medians: Any = [np.median(np.concatenate(run.blocks_ms)) for run in runs]
    low, middle, high = np.quantile(medians, (0.25, 0.5, 0.75))
    return float((high - low) / middle)


def _quarter_drift(run: Run) -> float:
    """How much slower the last quarter of a process's runs is than its first; negative where it got faster."""
    samples = np.concatenate(run.blocks_ms)
    quarter = -(-len(samples) // 4)
    return float(np.median(samples[-quarter:]) / np.median(samples[:quarter]) - 1)


def _throttled_share(blocks: Iterable[Event]) -> float | None:
    verdicts = [is_throttled(block) for block in blocks]
    return None if None in verdicts else float(np.mean([bool(verdict) for verdict in verdicts]))


def is_throttled(block: Event) -> bool | None:
    """Whether the firmware reports throttling in a block: by a bit for now, or by one "since boot" that was not set before it."""
    before, after = (block[side].get("throttle_bits") for side in ("before", "after"))
    if before is None or after is None:
        return None
    return bool((int(before) | int(after)) & THROTTLED_NOW or int(after) & ~int(before) & THROTTLED_SINCE_BOOT)


def read_values(block: Event, unit: str) -> list[float]:
    """Every value of a block, before and after it, whose sensor's name ends with `unit`."""
    return [value for side in ("before", "after") for name, value in block[side].items() if name.endswith(unit) and value is not None]
