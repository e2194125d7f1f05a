"""What host and agent say to each other: one JSON line in (the job), JSON lines out (the events).

    host -> agent    job; a line more for each block of a job in turns
    agent -> host    hello, the events of the job's kind, then `done` or `error` and nothing after it

Every event carries its number `n`, so a lost or doubled line is noticed. A login shell may print before `hello`: such lines
are skipped, later ones are an error. Times are nanoseconds, sizes bytes.
"""

from __future__ import annotations

import json
import math
from typing import Any, Callable, Dict, Mapping, Optional

from stages.payload.faults import FAULTS

SCHEMA = 1
MAX_LINE_BYTES = 64 << 20  # a block of a minute of 10 us runs is about 40 MB
MAX_NOISE_LINES = 1000
TERMINAL = ("done", "error")
SCOPES = ("model", "end_to_end")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_count, value))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _values(value: Any, check: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(check, value.values()))


def _reading(value: Any) -> bool:
    """Of a sensor: None where it could not be read."""
    return value is None or _number(value)


CHECKS: Dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "text or null": lambda value: value is None or isinstance(value, str),
    "texts": _texts,
    "flag": lambda value: isinstance(value, bool),
    "number": _number,
    "number or null": lambda value: value is None or _number(value),
    "count": _count,
    "counts": _counts,
    "counts or null": lambda value: value is None or _counts(value),
    "map": lambda value: isinstance(value, dict),
    "map or null": lambda value: value is None or isinstance(value, dict),
    "maps": lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    "map of counts": lambda value: _values(value, _count),
    "map of readings": lambda value: _values(value, _reading),
    "map of series": lambda value: _values(value, lambda series: isinstance(series, list) and all(map(_reading, series))),
    "fault": lambda value: value in FAULTS,
    "scope": lambda value: value in SCOPES,
}

EVENTS: Dict[str, Dict[str, str]] = {
    "hello": {"schema": "count", "python": "text", "versions": "map", "modules": "texts", "cpus": "counts"},
    "facts": {"facts": "map", "sensors": "maps", "memory_limit": "text"},
    "cooled": {"waited_s": "number", "hottest_mdegc": "number or null"},
    "loaded": {"wall_ns": "count"},
    "first_inference": {"wall_ns": "count"},
    "warmup": {"wall_ns": "counts", "steady": "flag"},
    "side": {"index": "count", "line": "text"},
    "block": {
        "wall_ns": "counts",
        "cpu_ns": "counts",
        "wait_ns": "counts or null",
        "before": "map of readings",
        "after": "map of readings",
    },
    "memory": {"mark": "text", "bytes": "map of counts", "peak_reset": "flag", "major_faults": "count"},
    "sources": {"sources": "maps"},
    "energy": {"phase": "text", "at_ns": "counts", "values": "map of series", "runs": "count"},
    "limited": {"limit_bytes": "count", "how": "text", "verdict": "text", "evidence": "text", "events": "maps"},
    "outputs": {"index": "count", "arrays": "map"},
    "operators": {"wall_ns": "count", "operators": "maps"},
    "trace": {"content": "text or null"},
    "bundle": {"code": "count", "stdout": "text", "stderr": "text"},
    "done": {},
    "error": {"fault": "fault", "phase": "text", "message": "text"},
}

_MODEL = {"runner": "text", "model": "text", "settings": "map", "inputs": "text", "scope": "scope", "preprocessing": "map or null"}
_LATENCY = {**_MODEL, "warmup": "map", "blocks": "count", "block_s": "number", "min_runs": "count"}
JOBS: Dict[str, Dict[str, str]] = {
    "probe": {"packages": "texts"},
    "cool_down": {"below_degc": "number", "max_s": "number"},
    "latency": _LATENCY,
    "latency_in_turns": _LATENCY,
    "pair": {"sides": "maps", "blocks": "count"},
    "fits": {**_LATENCY, "limit_bytes": "count", "inner_deadline_s": "number"},
    "memory": {**_MODEL, "runs": "count"},
    "outputs": _MODEL,
    "energy": {**_MODEL, "seconds": "number"},
    "profile": {**_MODEL, "warmup_runs": "count", "runs": "count"},
    "bundle": {"bundle": "text", "arguments": "texts"},
}


def wrong_field(content: Mapping[str, Any], fields: Mapping[str, str]) -> Optional[str]:
    """The first field of `fields` that `content` lacks or that is of another kind; None where all are right."""
    for name, kind in fields.items():
        if name not in content:
            return f"{name} is missing"
        if not CHECKS[kind](content[name]):
            return f"{name} is {content[name]!r:.60}, it must be a {kind}"
    return None


def job_line(kind: str, deadline_s: float, **fields: Any) -> bytes:
    job = {"schema": SCHEMA, "kind": kind, "deadline_s": deadline_s, **fields}
    return json.dumps(check_job(job), allow_nan=False).encode() + b"\n"


def check_job(job: Any) -> Dict[str, Any]:
    """`job` itself where it is one; ValueError with the wrong field otherwise."""
    if not isinstance(job, dict) or job.get("kind") not in JOBS:
        raise ValueError(f"no job: {job!r:.80}; kinds are {', '.join(JOBS)}")
    if job.get("schema") != SCHEMA:
        raise ValueError(f"job of schema {job.get('schema')}, this agent speaks {SCHEMA}")
    wrong = wrong_field(job, {"deadline_s": "number", **JOBS[job["kind"]]})
    if wrong:
        raise ValueError(f"{job['kind']} job: {wrong}")
    return job


def event_line(number: int, event: str, fields: Mapping[str, Any]) -> bytes:
    return json.dumps({"event": event, "n": number, **fields}, allow_nan=False).encode() + b"\n"
