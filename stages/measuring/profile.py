"""Time by operator, from the raw runs of a profile pass."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.artifact import METRICS_SCHEMA, write_json
from stages.measuring.runs import Run

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
