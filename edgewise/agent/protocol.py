"""How a device can fail to deliver, one word each."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import threading
from typing import Any, Callable, Dict, Mapping, Optional

# What can go wrong between the host and a result, and what the user does next.
FAULTS = {
    "host_key": "check the device's host key and add it to known_hosts",
    "auth": "check user and key, and that the public key is in the device's authorized_keys",
    "unreachable": "check that the device is on, and its host and port",
    "unknown_host": "check device.host: the name cannot be resolved",
    "ssh_error": "try the same by hand with `ssh HOST`, then run again",
    "dropped": "the link was lost in the middle of a run; check the network and run again",
    "disk_full": "free space on the device and run again",
    "no_python": "install python 3.9 or newer on the device, or name it in device.python",
    "python_too_old": "install python 3.9 or newer on the device, or name it in device.python",
    "runtime_missing": "install the runtime on the device with the named pip command",
    "no_emulator": "make one with `make arm64`, or name the folder of one in device.sysroot",
    "deadline": "the device is too slow for the time limit or hangs; raise bench.max_s, or look at the last lines it printed",
    "oom_killed": "the kernel killed the run for memory; stop other programs on the device",
    "out_of_memory": "the device has too little free memory; stop other programs on it",
    "killed": "something else on the device ended the run; run again",
    "agent_error": "read the last lines that the device printed",
    "protocol": "run again; if it stays, something on the device writes into the agent's output",
    "busy": "another measurement runs on this device; wait for it to end",
    "model_rejected": "the runtime refuses this file",
    "model_aborted": "the runtime aborts on this file",
    "not_offered": "the format cannot run on this device",
}
DETERMINISTIC = ("model_rejected", "model_aborted", "not_offered")  # the variant's own failure, not the device's


class Fault(Exception):
    """The device did not deliver. `word` is a key of FAULTS; the message says what was seen and what to do next."""

    def __init__(self, word: str, seen: str):
        super().__init__(f"{seen}; {FAULTS[word]}")
        self.word = word


# What host and agent say to each other: one JSON line in (the job), JSON lines out (the events).
#
#     host -> agent    job; a line more for each block of a job in turns
#     agent -> host    hello, the events of the job's kind, then `done` or `error` and nothing after it
#
# Every event carries its number `n`, so a lost or doubled line is noticed. A login shell may print before `hello`: such lines
# are skipped, later ones are an error. Times are nanoseconds, sizes bytes.

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


# The agent's way to the host and back: events, each with its number (see protocol).


class Wire:
    """The way to the host. Whatever native code or a runtime prints on stdout goes to stderr from here on."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._count = 0
        self.phase = "start"
        self.turns = threading.Semaphore(0)  # one for each line of stdin after the job

    def send(self, event: str, **fields: Any) -> None:
        self._stream.write(event_line(self._count, event, fields))
        self._stream.flush()
        self._count += 1


def hello(wire: Wire, versions: Mapping[str, str]) -> None:
    """Who answers: versions, and every package outside of the standard library that has been imported."""
    files = {name.split(".")[0]: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    outside = {name for name, file in files.items() if "-packages" in file and not name.startswith("_")}  # _: what .pth files load
    wire.send(
        "hello",
        schema=SCHEMA,
        python=platform.python_version(),
        versions=dict(versions),
        modules=sorted(outside),
        cpus=sorted(os.sched_getaffinity(0)),
    )


# The host's end of the protocol: lines become events, anything else one named error.

# How a line can be wrong; `ProtocolFault.garbage` is one of these words.
GARBAGE = (
    *("no_hello", "too_long", "truncated", "not_text", "not_json", "not_an_event"),
    *("wrong_schema", "unknown_event", "bad_field", "out_of_order", "after_end"),
)


class ProtocolFault(Fault):
    """A line that is no event; `garbage` is one of GARBAGE."""

    def __init__(self, garbage: str, seen: str):
        super().__init__("protocol", f"{garbage.replace('_', ' ')}: {seen}")
        self.garbage = garbage


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number")


class Reader:
    """Takes the lines of one run of the agent, in order. `started` after hello, `ended` after done or error."""

    def __init__(self) -> None:
        self.started = False
        self.ended = False
        self.count = 0
        self.noise = 0
        self.first_noise = b""

    def line(self, line: bytes) -> Optional[Dict[str, Any]]:
        """The event of a line with its newline; None for a login shell's noise before hello."""
        if self.ended:
            raise ProtocolFault("after_end", _show(line))
        if len(line) > MAX_LINE_BYTES:
            raise ProtocolFault("too_long", f"a line of more than {MAX_LINE_BYTES} bytes")
        if not line.endswith(b"\n"):
            raise ProtocolFault("truncated", f"the output ends within a line, {_show(line)}")
        if not self.started and not line.lstrip().startswith(b'{"event":'):
            self._skip(line)
            return None
        return self._event(line)

    def end(self) -> None:
        """The output is at its end: ProtocolFault where lines came but no hello, nothing where no line came at all."""
        if self.noise and not self.started:
            raise ProtocolFault("no_hello", f"the device wrote {self.noise} lines but no hello, first {_show(self.first_noise)}")

    def _skip(self, line: bytes) -> None:
        self.noise += 1
        self.first_noise = self.first_noise or line
        if self.noise > MAX_NOISE_LINES:
            self.end()

    def _event(self, line: bytes) -> Dict[str, Any]:
        event = _parse(line)
        name = event["event"]
        if not self.started and name not in ("hello", "error"):
            raise ProtocolFault("no_hello", f"the first event is {_show(line)}")
        wrong = wrong_field(event, {"n": "count", **EVENTS[name]})
        if wrong:
            raise ProtocolFault("bad_field", f"{name}: {wrong}")
        if name == "hello" and event["schema"] != SCHEMA:
            raise ProtocolFault("wrong_schema", f"the agent speaks schema {event['schema']}, this host {SCHEMA}")
        if name == "block":
            _check_lengths(event)
        if name == "energy":
            _check_window(event)
        if event["n"] != self.count:
            raise ProtocolFault("out_of_order", f"event {event['n']} came where {self.count} was due, {_show(line)}")
        self.count += 1
        self.started = True
        self.ended = name in TERMINAL
        return event


def _parse(line: bytes) -> Dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolFault("not_text", _show(line)) from None
    try:
        event = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ProtocolFault("not_json", _show(line)) from None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ProtocolFault("not_an_event", _show(line))
    if event["event"] not in EVENTS:
        raise ProtocolFault("unknown_event", f"{event['event']!r:.40}; there are {', '.join(EVENTS)}")
    return event


def _check_lengths(block: Dict[str, Any]) -> None:
    lengths = {name: len(block[name]) for name in ("wall_ns", "cpu_ns", "wait_ns") if block[name] is not None}
    if len(set(lengths.values())) != 1 or not block["wall_ns"] or min(block["wall_ns"]) == 0:
        raise ProtocolFault("bad_field", f"block: wall_ns must be positive, and all lists of one length: {lengths}")


def _check_window(energy: Dict[str, Any]) -> None:
    at_ns, lengths = energy["at_ns"], {len(series) for series in energy["values"].values()}
    if len(at_ns) < 2 or at_ns != sorted(set(at_ns)) or lengths - {len(at_ns)}:
        raise ProtocolFault("bad_field", f"energy: at_ns must grow, and all values be of its length: {len(at_ns)}, {sorted(lengths)}")


def _show(line: bytes) -> str:
    return f"{line[:60]!r:.80}"
