"""The passes beside latency: memory, energy, memory limits and operators, each in a process of its own.

`Passes.measure` runs those that the profile asks for; the other functions turn their raw events into records. Energy comes from the raw
values of real sensors; what cannot be read is reported as such, never estimated. Net energy is above the idle baseline of the same
device, that is what the inferences add; gross energy is all that the sensor saw, per inference.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.artifact import METRICS_SCHEMA, write_json
from edgewise.artifacts.records import Energy, EnergyFigures, LimitedRun, Memory
from edgewise.config.schema import Bench
from edgewise.measure.runs import Event, PlacedVariant, Run, check_limits
from edgewise.stats.timing import t_quantile

UNITS = {"uj": 1e-6, "uw": 1e-6, "w": 1.0}  # to joules and watts, by the end of a source's name
PARTS = 8  # of a window, for the interval
WIDEST_FIRST = ("device", "board", "package")  # any other scope is a part
OPERATOR_KEYS = ("name", "type", "kernel", "dtype", "converts", "fallback")
TYPE_KEYS = ("type", "dtype", "converts", "fallback")
QUARTILES = (0.25, 0.75)
OperatorRuns = Sequence[Sequence[Mapping[str, Any]]]  # for each inference the operators that it executed


@dataclass(frozen=True)
class Passes:
    """The runs of the passes; None for a pass that the profile leaves out."""

    memory: Run | None = None
    energy: Run | None = None
    fits: tuple[Run, ...] = ()
    profile: Run | None = None

    @classmethod
    def measure(cls, variant: PlacedVariant, bench: Bench) -> "Passes":
        """Run the passes that the profile asks for, one after the other."""
        check_limits(bench.fits_mb)
        return cls(
            variant.memory() if bench.memory else None,
            variant.energy(bench.energy_s) if bench.energy_s else None,
            tuple(variant.fits(limit_mb) for limit_mb in bench.fits_mb),
            variant.profile() if bench.profile else None,
        )

    @property
    def runs(self) -> list[Run]:
        """The runs whose events samples.json keeps; the profile has files of its own."""
        return [run for run in (self.memory, self.energy, *self.fits) if run]


def make_memory(run: Run) -> Memory:
    """The record of a memory pass, bytes."""
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


def make_limited_runs(runs: Sequence[Run]) -> dict[str, LimitedRun]:
    """The record of each run under a limit, by limit in MB (2^20 bytes)."""
    events = [run.one("limited") for run in runs]
    return {str(event["limit_bytes"] >> 20): make_limited_run(event) for event in events}


def make_limited_run(event: Event) -> LimitedRun:
    """The record of one run under a limit; for the verdict ok with the median and the major page faults at that limit."""
    record = LimitedRun(event["verdict"], f"{event['how']}: {event['evidence']}")
    block = next((inner for inner in event.get("events", ()) if inner["event"] == "block"), None)
    if record.verdict != "ok" or block is None:
        return record
    return replace(record, p50_ms=float(np.median(block["wall_ns"])) / 1e6, major_faults=block["after"]["faults_major_count"])


def make_energy(run: Run) -> Energy:
    """The record of an energy pass, from the sensor that sees most of the device; without figures if none can be read."""
    sources = run.one("sources")["sources"]
    if not sources:
        return Energy("no sensor on this device")
    readings, problems = [], [f"{s['name']}: {s['problem']}" for s in sources if s["problem"]]
    windows = {event["phase"]: event for event in run.all("energy")}
    for source in (s for s in sources if not s["problem"]):
        try:
            readings.append(integrate(source, windows["idle"], windows["load"]))
        except ValueError as error:
            problems.append(f"{source['name']}: {error}")
    if not readings:
        return Energy("; ".join(problems), problems=tuple(problems))
    return Energy("measured", min(readings, key=_rank_reading).figures, tuple(problems))


def _rank_reading(reading: "Reading") -> tuple[int, float]:
    """Sort key: the source that sees most of the device first; among equals the one that shows most power."""
    scope = reading.source["scope"]
    return (WIDEST_FIRST.index(scope) if scope in WIDEST_FIRST else len(WIDEST_FIRST), -reading.load_w)


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


def integrate(source: Mapping[str, Any], idle: Event, load: Event) -> Reading:
    """One source over both windows. ValueError if it vanished, ran backwards, stood still or was read less than twice."""
    idle_j, load_j = (joules(source, window) for window in (idle, load))
    idle_s, load_s = (window["at_ns"][-1] / 1e9 - window["at_ns"][0] / 1e9 for window in (idle, load))
    idle_w, runs = idle_j / idle_s, load["runs"]
    return Reading(
        source=source,
        idle_w=idle_w,
        load_w=load_j / load_s,
        gross_mj=1e3 * load_j / runs,
        net_mj=1e3 * (load_j - idle_w * load_s) / runs,
        net_ci95_mj=net_interval_mj(source, idle, load, 1e3 * load_s / runs),
        rate_hz=(len(load["at_ns"]) - 1) / load_s,
    )


def net_interval_mj(source: Mapping[str, Any], idle: Event, load: Event, mj_per_w: float) -> tuple[float, float] | None:
    """95 % interval of the net energy of one inference, mJ, by batch means (Law, Simulation Modeling and Analysis, chapter 9).

    Each window is split into PARTS equal parts, long compared with the correlation between readings; their mean powers give Student's t
    interval of the difference, with the degrees of freedom of one window alone, so that it is never too narrow. None where a part holds
    too few readings. mj_per_w: millijoules of one inference for each watt above idle.
    """
    try:
        watts = [np.array([mean_part_w(source, window, i) for i in range(PARTS)]) for window in (idle, load)]
    except ValueError:
        return None
    half = t_quantile(0.975, PARTS - 1) * float(np.sqrt(sum(part.var(ddof=1) for part in watts) / PARTS))
    middle = float(watts[1].mean() - watts[0].mean())
    return mj_per_w * (middle - half), mj_per_w * (middle + half)


def mean_part_w(source: Mapping[str, Any], window: Event, number: int) -> float:
    """Mean power in part `number` (0 to PARTS - 1) of a window, W. ValueError if it holds too few readings, or the counter stood still."""
    edges = np.linspace(0, len(window["at_ns"]) - 1, PARTS + 1).astype(int)
    start, end = edges[number], edges[number + 1]
    if end - start < 2:
        raise ValueError("too few readings")
    part = {**window, "at_ns": window["at_ns"][start : end + 1]}
    part["values"] = {source["name"]: window["values"][source["name"]][start : end + 1]}
    return float(joules(source, part) / ((part["at_ns"][-1] - part["at_ns"][0]) / 1e9))


def joules(source: Mapping[str, Any], window: Event) -> float:
    """Energy of a window, J: the growth of a counter, or the integral of power by trapezoids. ValueError as for `integrate`."""
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
    return _grown_joules(scaled, source["wraps_at"] and source["wraps_at"] * unit, window["phase"])


def _grown_joules(counter: np.ndarray, wraps_at: float | None, phase: str) -> float:
    steps = np.diff(counter)
    if (steps < 0).any():
        if not wraps_at:
            raise ValueError(f"counted backwards in the {phase} window")
        steps = np.where(steps < 0, steps + wraps_at, steps)
    if not steps.any():
        raise ValueError(f"stood still in the {phase} window")
    return float(steps.sum())


def write_profile(run: Run, unsupported: str | None, folder: Path) -> None:
    """Write profile.json, and trace.json if the runtime gives a trace. unsupported: why the runtime gives no times, or None."""
    write_json(folder / "profile.json", {"schema": METRICS_SCHEMA, **make_profile(run, unsupported)})
    trace = run.one("trace")["content"]
    if trace is not None:
        (folder / "trace.json").write_text(trace, encoding="utf-8")


def make_profile(run: Run, unsupported: str | None) -> dict[str, Any]:
    """The content of profile.json. unsupported: why this runtime gives no times; every time is then None.

    ms: median over the runs of the time that an operator takes in one inference, ms_quartiles its spread; share: of the sum of these
    medians, which a burst of load from elsewhere does not change. outside_share: the share of an inference that is spent outside of its
    operators, including the profiler's own work.
    """
    events = run.all("operators")
    runs = [event["operators"] for event in events]
    wall_ms = np.array([event["wall_ns"] for event in events]) / 1e6
    operators = group_operators(runs, lambda op: tuple(op[key] for key in OPERATOR_KEYS), OPERATOR_KEYS)
    inside_ms = None if unsupported else np.array([sum(op["time_ns"] for op in one) for one in runs]) / 1e6
    return {
        "status": "unsupported" if unsupported else "measured",
        "reason": unsupported,
        "runs": len(runs),
        "inference": summarize(wall_ms),
        "outside_share": None if inside_ms is None else float(1 - np.median(inside_ms / wall_ms)),
        "types": group_operators(runs, lambda op: tuple(op[key] for key in TYPE_KEYS), TYPE_KEYS),
        "operators": operators,
    }


def group_operators(runs: OperatorRuns, key: Callable[[Mapping[str, Any]], Hashable], names: Sequence[str]) -> list[dict[str, Any]]:
    """One entry for each key, the slowest first: its fields `names`, calls per inference, share, ms and ms_quartiles."""
    times: dict[Hashable, list[list[float | None]]] = defaultdict(lambda: [[] for _ in runs])
    firsts: dict[Hashable, Mapping[str, Any]] = {}
    for index, one in enumerate(runs):
        for op in one:
            firsts.setdefault(key(op), op)
            times[key(op)][index].append(op["time_ns"])
    found = [{**{n: firsts[k][n] for n in names}, **_summarize_times(by_run)} for k, by_run in times.items()]
    total_ms = sum(entry["ms"] or 0.0 for entry in found)
    shared = [{**entry, "share": entry["ms"] / total_ms if total_ms and entry["ms"] is not None else None} for entry in found]
    return sorted(shared, key=lambda entry: -(entry["share"] or 0.0))


def _summarize_times(by_run: list[list[float | None]]) -> dict[str, Any]:
    calls = sum(map(len, by_run)) / len(by_run)
    if any(time is None for one in by_run for time in one):
        return {"calls": calls, "ms": None, "ms_quartiles": None}
    return {"calls": calls, **summarize(np.array([sum(time or 0.0 for time in one) for one in by_run]) / 1e6)}


def summarize(values_ms: np.ndarray) -> dict[str, Any]:
    return {"ms": float(np.median(values_ms)), "ms_quartiles": [float(bound) for bound in np.quantile(values_ms, QUARTILES)]}
