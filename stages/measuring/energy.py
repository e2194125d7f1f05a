"""Energy per inference from the raw values of real sensors. What cannot be read is said, never estimated.

Net is above the idle baseline of the same device: what the inferences add. Gross is all that the sensor saw, per inference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.core.results import Energy, EnergyFigures
from stages.core.timing_stats import t_quantile
from stages.measuring.runs import Event, Run

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
    return joules(source, part) / ((part["at_ns"][-1] - part["at_ns"][0]) / 1e9)


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
