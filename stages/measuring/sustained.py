"""What stays after minutes of load: the median minute by minute, its drift, and when the device began to throttle."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.core.results import Sustained
from stages.measuring.grading import readings, throttled
from stages.measuring.runs import Event, Run
from stages.measuring.session import Rounds

MINUTE_S = 60.0
LEAST_MINUTES = 2  # a first and a last one
SLOW_CLOCK = 0.90  # of the first minute's frequency: a governor's own steps are smaller


def by_minute(run: Run) -> list[dict[str, Any]]:
    """One entry for each minute of a process: median_ms, and where sensors tell: temperature_degc, frequency_mhz, throttled."""
    blocks = run.all("block")
    ends_s = np.cumsum([sum(block["wall_ns"]) / 1e9 for block in blocks])
    minutes: dict[int, list[Event]] = {}
    for block, end_s in zip(blocks, ends_s, strict=True):
        minutes.setdefault(int((end_s - 1e-9) // MINUTE_S), []).append(block)
    return [{"minute": minute, **_summary(members)} for minute, members in minutes.items()]


def _summary(blocks: Sequence[Event]) -> dict[str, Any]:
    degrees = [value / 1000 for block in blocks for value in readings(block, "_mdegc")]
    clocks = [value / 1000 for block in blocks for value in readings(block, "_khz")]
    verdicts = [throttled(block) for block in blocks]
    return {
        "median_ms": float(np.median(np.concatenate([block["wall_ns"] for block in blocks]))) / 1e6,
        "temperature_degc": max(degrees, default=None),
        "frequency_mhz": float(np.mean(clocks)) if clocks else None,
        "throttled": None if None in verdicts else any(verdicts),
    }


def throttling_minute(minutes: Sequence[dict[str, Any]]) -> int | None:
    """The first minute that the firmware calls throttled, or whose clock is clearly below the first minute's."""
    first_mhz = minutes[0]["frequency_mhz"]
    for entry in minutes:
        slow = first_mhz is not None and entry["frequency_mhz"] is not None and entry["frequency_mhz"] < SLOW_CLOCK * first_mhz
        if entry["throttled"] or slow:
            return entry["minute"]
    return None


def sustained(rounds: Rounds) -> Sustained | None:
    """Start and end of the longest runs, side by side, so that the ranking of several variants at the start and at the end can be
    compared; None where no process ran for some minutes."""
    variant, reference = by_minute(rounds.variant[0]), by_minute(rounds.reference[0])
    if min(len(variant), len(reference)) < LEAST_MINUTES:
        return None
    start, end = variant[0]["median_ms"], variant[-1]["median_ms"]
    return Sustained(
        minutes=len(variant),
        start_p50_ms=start,
        end_p50_ms=end,
        drift=end / start - 1,
        ratio_start=start / reference[0]["median_ms"],
        ratio_end=end / reference[-1]["median_ms"],
        throttled_from_minute=throttling_minute(variant),
        temperature_max_degc=max((m["temperature_degc"] for m in variant if m["temperature_degc"] is not None), default=None),
    )
