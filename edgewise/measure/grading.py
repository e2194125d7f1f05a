"""Grade how much a measurement was disturbed: clean, degraded or noisy, with the evidence."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgewise.measure.runs import Event, Run

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
