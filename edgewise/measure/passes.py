"""Energy per inference from the raw values of real sensors. What cannot be read is said, never estimated.

Net is above the idle baseline of the same device: what the inferences add. Gross is all that the sensor saw, per inference.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.artifact import METRICS_SCHEMA, write_json
from edgewise.artifacts.records import Energy, EnergyFigures, Sustained
from edgewise.measure.grading import readings, throttled
from edgewise.measure.pairs import Rounds
from edgewise.measure.subjects import Event, Run
from edgewise.stats.timing import t_quantile

UNITS = {"uj": 1e-6, "uw": 1e-6, "w": 1.0}  # to joules and watts, by the end of a source's name
PARTS = 8  # of a window, for the interval
WIDEST_FIRST = ("device", "board", "package")  # any other scope is a part


@dataclass(frozen=True)
class Reading:
    """One sensor over the idle and the loaded window."""

    source: Mapping[str, Any]
    idle_w: float
    load_w: float
    gross_mj: float
    net_mj: float
    net_ci95_mj: tuple[float, float] | None  # None where the sensor is too slow to be split into parts
    rate_hz: float

    @property
    def figures(self) -> EnergyFigures:
        return EnergyFigures(
            source=self.source["name"],
            scope=self.source["scope"],
            rate_hz=self.rate_hz,
            idle_w=self.idle_w,
            mean_w=self.load_w,
            gross_mj=self.gross_mj,
            net_mj=self.net_mj,
            net_ci95_mj=self.net_ci95_mj,
        )


def energy_of(run: Run) -> Energy:
    """By the sensor that sees most of the device; without figures where none can be read."""
    sources = run.one("sources")["sources"]
    if not sources:
        return Energy("no sensor on this device")
    readings, problems = [], [f"{s['name']}: {s['problem']}" for s in sources if s["problem"]]
    windows = {event["phase"]: event for event in run.all("energy")}
    for source in (s for s in sources if not s["problem"]):
        try:
            readings.append(read(source, windows["idle"], windows["load"]))
        except ValueError as error:
            problems.append(f"{source['name']}: {error}")
    if not readings:
        return Energy("; ".join(problems), problems=tuple(problems))
    return Energy("measured", min(readings, key=_rank).figures, tuple(problems))


def _rank(reading: Reading) -> tuple[int, float]:
    """The source that sees most of the device first; among equals the one that shows most power."""
    scope = reading.source["scope"]
    return (WIDEST_FIRST.index(scope) if scope in WIDEST_FIRST else len(WIDEST_FIRST), -reading.load_w)


def read(source: Mapping[str, Any], idle: Event, load: Event) -> Reading:
    """ValueError where the source vanished on the way, ran backwards, stood still or was read less than twice."""
    idle_j, load_j = (joules(source, window) for window in (idle, load))
    idle_s, load_s = (window["at_ns"][-1] / 1e9 - window["at_ns"][0] / 1e9 for window in (idle, load))
    idle_w, runs = idle_j / idle_s, load["runs"]
    return Reading(
        source=source,
        idle_w=idle_w,
        load_w=load_j / load_s,
        gross_mj=1e3 * load_j / runs,
        net_mj=1e3 * (load_j - idle_w * load_s) / runs,
        net_ci95_mj=net_interval(source, idle, load, 1e3 * load_s / runs),
        rate_hz=(len(load["at_ns"]) - 1) / load_s,
    )


def net_interval(source: Mapping[str, Any], idle: Event, load: Event, mj_per_w: float) -> tuple[float, float] | None:
    """95 % interval of the net energy of one inference by batch means: the mean power of PARTS equal parts of each window, which are
    long against what one reading has in common with the next; Student's t of their difference with as many degrees of freedom as one
    window alone gives, which is never too narrow."""
    try:
        watts = [np.array([part_w(source, window, i) for i in range(PARTS)]) for window in (idle, load)]
    except ValueError:
        return None
    half = t_quantile(0.975, PARTS - 1) * float(np.sqrt(sum(part.var(ddof=1) for part in watts) / PARTS))
    middle = float(watts[1].mean() - watts[0].mean())
    return mj_per_w * (middle - half), mj_per_w * (middle + half)


def part_w(source: Mapping[str, Any], window: Event, number: int) -> float:
    """Mean power in one of PARTS parts of a window. ValueError where too few readings lie in it, or the counter stood still."""
    edges = np.linspace(0, len(window["at_ns"]) - 1, PARTS + 1).astype(int)
    start, end = edges[number], edges[number + 1]
    if end - start < 2:
        raise ValueError("too few readings")
    part = {**window, "at_ns": window["at_ns"][start : end + 1]}
    part["values"] = {source["name"]: window["values"][source["name"]][start : end + 1]}
    return float(joules(source, part) / ((part["at_ns"][-1] - part["at_ns"][0]) / 1e9))


def joules(source: Mapping[str, Any], window: Event) -> float:
    """What a source counted in a window: the counter's growth, or the trapezoid under its power."""
    values, at_ns = window["values"][source["name"]], window["at_ns"]
    if len(values) < 2:
        raise ValueError(f"{len(values)} readings in the {window['phase']} window, two are needed")
    if at_ns[-1] <= at_ns[0]:
        raise ValueError(f"no time passed in the {window['phase']} window")
    if any(value is None for value in values):
        raise ValueError(f"vanished in the {window['phase']} window")
    unit = UNITS[source["name"].rpartition("_")[2]]
    scaled = np.array(values, float) * unit
    if not source["counter"]:
        steps_s = np.diff(np.array(at_ns)) / 1e9
        return float(np.sum(steps_s * (scaled[1:] + scaled[:-1]) / 2))  # np.trapezoid, which numpy 1 lacks
    return _growth(scaled, source["wraps_at"] and source["wraps_at"] * unit, window["phase"])


def _growth(counter: np.ndarray, wraps_at: float | None, phase: str) -> float:
    steps = np.diff(counter)
    if (steps < 0).any():
        if not wraps_at:
            raise ValueError(f"counted backwards in the {phase} window")
        steps = np.where(steps < 0, steps + wraps_at, steps)
    if not steps.any():
        raise ValueError(f"stood still in the {phase} window")
    return float(steps.sum())


# What stays after minutes of load: the median minute by minute, its drift, and when the device began to throttle.

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
            return int(entry["minute"])
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


# Time by operator, from the raw runs of a profile pass.

KNOWN = ("name", "type", "kernel", "dtype", "converts", "fallback")
QUARTILES = (0.25, 0.75)
Runs = Sequence[Sequence[Mapping[str, Any]]]


def write(run: Run, unsupported: str | None, folder: Path) -> None:
    """profile.json, and trace.json where the runtime writes a trace."""
    write_json(folder / "profile.json", {"schema": METRICS_SCHEMA, **profile(run, unsupported)})
    trace = run.one("trace")["content"]
    if trace is not None:
        (folder / "trace.json").write_text(trace, encoding="utf-8")


def profile(run: Run, unsupported: str | None) -> dict[str, Any]:
    """What the profile pass found. unsupported: why this runtime gives no times; then every time is None.

    ms: median over the runs of what an operator takes in one inference, ms_quartiles its spread; share: of the sum of these medians,
    which a burst from a neighbour leaves as it is. outside_share: what an inference spends outside of its operators, the profiler's
    own work included.
    """
    events = run.all("operators")
    runs = [event["operators"] for event in events]
    wall_ms = np.array([event["wall_ns"] for event in events]) / 1e6
    operators = grouped(runs, lambda op: tuple(op[key] for key in KNOWN), KNOWN)
    inside_ms = None if unsupported else np.array([sum(op["time_ns"] for op in one) for one in runs]) / 1e6
    return {
        "status": "unsupported" if unsupported else "measured",
        "reason": unsupported,
        "runs": len(runs),
        "inference": spread(wall_ms),
        "outside_share": None if inside_ms is None else float(1 - np.median(inside_ms / wall_ms)),
        "types": grouped(
            runs, lambda op: (op["type"], op["dtype"], op["converts"], op["fallback"]), ("type", "dtype", "converts", "fallback")
        ),
        "operators": operators,
    }


def grouped(runs: Runs, key: Callable[[Mapping[str, Any]], Hashable], names: Sequence[str]) -> list[dict[str, Any]]:
    """One entry for each key, the one that takes most time first: its fields `names`, calls in an inference, share, ms."""
    times: dict[Hashable, list[list[float | None]]] = defaultdict(lambda: [[] for _ in runs])
    firsts: dict[Hashable, Mapping[str, Any]] = {}
    for index, one in enumerate(runs):
        for op in one:
            firsts.setdefault(key(op), op)
            times[key(op)][index].append(op["time_ns"])
    found = [{**{n: firsts[k][n] for n in names}, **_figures(by_run)} for k, by_run in times.items()]
    whole = sum(entry["ms"] or 0.0 for entry in found)
    shared = [{**entry, "share": entry["ms"] / whole if whole and entry["ms"] is not None else None} for entry in found]
    return sorted(shared, key=lambda entry: -(entry["share"] or 0.0))


def _figures(by_run: list[list[float | None]]) -> dict[str, Any]:
    calls = sum(map(len, by_run)) / len(by_run)
    if any(time is None for one in by_run for time in one):
        return {"calls": calls, "ms": None, "ms_quartiles": None}
    return {"calls": calls, **spread(np.array([sum(time or 0.0 for time in one) for one in by_run]) / 1e6)}


def spread(values_ms: np.ndarray) -> dict[str, Any]:
    return {"ms": float(np.median(values_ms)), "ms_quartiles": [float(bound) for bound in np.quantile(values_ms, QUARTILES)]}
