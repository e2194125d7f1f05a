"""What host and agent say to each other: one JSON line in (the job), JSON lines out (the events).

    host -> agent    the job; for a job in turns one more line for each block
    agent -> host    `hello`, the events of the job's kind, then `done` or `error` and nothing after it

Every event carries its number `n`, so a lost or repeated line is noticed. A login shell may print before `hello`: such lines are
skipped, later ones are an error. Times are in nanoseconds, sizes in bytes. `EventStream` is the agent's end, `EventReader` the host's;
what goes wrong between them is a `Fault`, with one word of FAULTS.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import threading
from typing import Any, Callable, Dict, Mapping, Optional

# Every way in which a device can fail to deliver, and what the user does next.
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
DETERMINISTIC = ("model_rejected", "model_aborted", "not_offered")  # failures of the variant, not of the device


class Fault(Exception):
    """The device did not deliver. `word` is a key of FAULTS; the message says what happened and what to do next."""

    def __init__(self, word: str, seen: str):
        super().__init__(f"{seen}; {FAULTS[word]}")
        self.word = word


SCHEMA = 1
MAX_LINE_BYTES = 64 << 20  # a block of a minute of 10 us runs is about 40 MB
MAX_SKIPPED_LINES = 1000
TERMINAL = ("done", "error")
SCOPES = ("model", "end_to_end")
MAX_INTEGER = (1 << 63) - 1  # what an int64 of numpy holds


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


def _is_count_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _is_string_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _all_values(value: Any, check: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(check, value.values()))


def _is_reading(value: Any) -> bool:
    """Whether it is a value of a sensor; None stands for one that could not be read."""
    return value is None or _is_number(value)


# Kinds of fields, in the words of an error message.
STRING = "string"
STRING_OR_NULL = "string or null"
STRINGS = "list of strings"
BOOLEAN = "boolean"
NUMBER = "number"
NUMBER_OR_NULL = "number or null"
COUNT = "non-negative integer"
COUNTS = "list of non-negative integers"
COUNTS_OR_NULL = "list of non-negative integers or null"
OBJECT = "object"
OBJECT_OR_NULL = "object or null"
OBJECTS = "list of objects"
OBJECT_OF_COUNTS = "object of non-negative integers"
READINGS = "object of numbers or nulls"
SERIES = "object of lists of numbers or nulls"
FAULT = "word of FAULTS"
SCOPE = "model or end_to_end"

CHECKS: Dict[str, Callable[[Any], bool]] = {
    STRING: lambda value: isinstance(value, str),
    STRING_OR_NULL: lambda value: value is None or isinstance(value, str),
    STRINGS: _is_string_list,
    BOOLEAN: lambda value: isinstance(value, bool),
    NUMBER: _is_number,
    NUMBER_OR_NULL: lambda value: value is None or _is_number(value),
    COUNT: _is_count,
    COUNTS: _is_count_list,
    COUNTS_OR_NULL: lambda value: value is None or _is_count_list(value),
    OBJECT: lambda value: isinstance(value, dict),
    OBJECT_OR_NULL: lambda value: value is None or isinstance(value, dict),
    OBJECTS: lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
    OBJECT_OF_COUNTS: lambda value: _all_values(value, _is_count),
    READINGS: lambda value: _all_values(value, _is_reading),
    SERIES: lambda value: _all_values(value, lambda series: isinstance(series, list) and all(map(_is_reading, series))),
    FAULT: lambda value: isinstance(value, str) and value in FAULTS,
    SCOPE: lambda value: value in SCOPES,
}

# event -> its fields besides `event` and `n`
EVENTS: Dict[str, Dict[str, str]] = {
    "hello": {"schema": COUNT, "python": STRING, "versions": OBJECT, "modules": STRINGS, "cpus": COUNTS},
    "facts": {"facts": OBJECT, "sensors": OBJECTS, "memory_limit": STRING},
    "cooled": {"waited_s": NUMBER, "hottest_mdegc": NUMBER_OR_NULL},
    "loaded": {"wall_ns": COUNT},
    "first_inference": {"wall_ns": COUNT},
    "warmup": {"wall_ns": COUNTS, "steady": BOOLEAN},
    "side": {"index": COUNT, "line": STRING},
    "block": {
        "wall_ns": COUNTS,
        "cpu_ns": COUNTS,
        "wait_ns": COUNTS_OR_NULL,
        "before": READINGS,
        "after": READINGS,
    },
    "memory": {"mark": STRING, "bytes": OBJECT_OF_COUNTS, "peak_reset": BOOLEAN, "major_faults": COUNT},
    "sources": {"sources": OBJECTS},
    "energy": {"phase": STRING, "at_ns": COUNTS, "values": SERIES, "runs": COUNT},
    "limited": {"limit_bytes": COUNT, "how": STRING, "verdict": STRING, "evidence": STRING, "events": OBJECTS},
    "outputs": {"index": COUNT, "arrays": OBJECT},
    "operators": {"wall_ns": COUNT, "operators": OBJECTS},
    "trace": {"content": STRING_OR_NULL},
    "bundle": {"code": COUNT, "stdout": STRING, "stderr": STRING},
    "done": {},
    "error": {"fault": FAULT, "phase": STRING, "message": STRING},
}

_MODEL = {
    **{"runner": STRING, "model": STRING, "settings": OBJECT, "inputs": STRING, "scope": SCOPE},
    **{"preprocessing": OBJECT_OR_NULL, "answer": OBJECT_OR_NULL},
}
_LATENCY = {**_MODEL, "warmup": OBJECT, "blocks": COUNT, "block_s": NUMBER, "min_runs": COUNT}
# kind of job -> its fields besides `schema`, `kind` and `deadline_s`
JOBS: Dict[str, Dict[str, str]] = {
    "probe": {"packages": STRINGS},
    "cool_down": {"below_degc": NUMBER, "max_s": NUMBER},
    "latency": _LATENCY,
    "latency_in_turns": _LATENCY,
    "pair": {"sides": OBJECTS, "blocks": COUNT},
    "fits": {**_LATENCY, "limit_bytes": COUNT, "inner_deadline_s": NUMBER},
    "memory": {**_MODEL, "runs": COUNT},
    "outputs": _MODEL,
    "energy": {**_MODEL, "seconds": NUMBER},
    "profile": {**_MODEL, "warmup_runs": COUNT, "runs": COUNT},
    "bundle": {"bundle": STRING, "arguments": STRINGS},
}


def find_wrong_field(content: Mapping[str, Any], fields: Mapping[str, str]) -> Optional[str]:
    """What is wrong with the first field that `content` lacks or that is not of the kind that `fields` gives; None if nothing is."""
    for name, kind in fields.items():
        if name not in content:
            return f"{name} is missing"
        if not CHECKS[kind](content[name]):
            return f"{name} is {content[name]!r:.60}, required: {kind}"
    return None


def encode_job(kind: str, deadline_s: float, **fields: Any) -> bytes:
    """The line of a job. ValueError for a wrong field."""
    job = {"schema": SCHEMA, "kind": kind, "deadline_s": deadline_s, **fields}
    return json.dumps(check_job(job), allow_nan=False).encode() + b"\n"


def check_job(job: Any) -> Dict[str, Any]:
    """Return `job` unchanged. ValueError if it is not a job of this schema or has a wrong field."""
    if not isinstance(job, dict) or job.get("kind") not in JOBS:
        raise ValueError(f"not a job: {job!r:.80}; kinds are {', '.join(JOBS)}")
    if job.get("schema") != SCHEMA:
        raise ValueError(f"job of schema {job.get('schema')}, this agent speaks schema {SCHEMA}")
    wrong = find_wrong_field(job, {"deadline_s": NUMBER, **JOBS[job["kind"]]})
    if wrong:
        raise ValueError(f"{job['kind']} job: {wrong}")
    return job


def encode_event(number: int, event: str, fields: Mapping[str, Any]) -> bytes:
    """The line of an event."""
    return json.dumps({"event": event, "n": number, **fields}, allow_nan=False).encode() + b"\n"


class EventStream:
    """The agent's end: writes events to the original stdout. Whatever a runtime prints on stdout goes to stderr from here on."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._count = 0
        self.phase = "start"  # what the agent is doing, for an error event
        self.turns = threading.Semaphore(0)  # released once for each line of stdin after the job

    def send(self, event: str, **fields: Any) -> None:
        self._stream.write(encode_event(self._count, event, fields))
        self._stream.flush()
        self._count += 1


def send_hello(stream: EventStream, versions: Mapping[str, str]) -> None:
    """The first event: versions, allowed cores, and every imported package outside of the standard library."""
    files = {name.split(".")[0]: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    outside = {name for name, file in files.items() if "-packages" in file and not name.startswith("_")}  # _: what .pth files load
    stream.send(
        "hello",
        schema=SCHEMA,
        python=platform.python_version(),
        versions=dict(versions),
        modules=sorted(outside),
        cpus=sorted(os.sched_getaffinity(0)),
    )


# How a line can be wrong: the values of ProtocolFault.problem.
LINE_PROBLEMS = (
    *("no_hello", "too_long", "truncated", "not_text", "not_json", "not_an_event"),
    *("wrong_schema", "unknown_event", "bad_field", "out_of_order", "after_end"),
)


class ProtocolFault(Fault):
    """The agent's output breaks the protocol. `problem` is one of LINE_PROBLEMS."""

    def __init__(self, problem: str, seen: str):
        super().__init__("protocol", f"{problem.replace('_', ' ')}: {seen}")
        self.problem = problem


class EventReader:
    """The host's end: turns the lines of one run of the agent, in order, into checked events.

    `started` is set after `hello`, `ended` after `done` or `error`.
    """

    def __init__(self) -> None:
        self.started = False
        self.ended = False
        self.count = 0
        self.skipped = 0
        self.first_skipped = b""

    def parse_line(self, line: bytes) -> Optional[Dict[str, Any]]:
        """The event of a line (with its newline); None for what a login shell printed before `hello`. ProtocolFault for anything else."""
        if self.ended:
            raise ProtocolFault("after_end", _quote(line))
        if len(line) > MAX_LINE_BYTES:
            raise ProtocolFault("too_long", f"a line of more than {MAX_LINE_BYTES} bytes")
        if not line.endswith(b"\n"):
            raise ProtocolFault("truncated", f"the output ends in the middle of a line, {_quote(line)}")
        if not self.started and not line.lstrip().startswith(b'{"event":'):
            self._skip(line)
            return None
        return self._check(_parse(line), line)

    def check_end(self) -> None:
        """Call at the end of the output. ProtocolFault if there were lines but no `hello`; no output at all is not an error here."""
        if self.skipped and not self.started:
            raise ProtocolFault("no_hello", f"the device wrote {self.skipped} lines but no hello, first {_quote(self.first_skipped)}")

    def _skip(self, line: bytes) -> None:
        self.skipped += 1
        self.first_skipped = self.first_skipped or line
        if self.skipped > MAX_SKIPPED_LINES:
            self.check_end()

    def _check(self, event: Dict[str, Any], line: bytes) -> Dict[str, Any]:
        name = event["event"]
        if not self.started and name not in ("hello", "error"):
            raise ProtocolFault("no_hello", f"the first event is {_quote(line)}")
        wrong = find_wrong_field(event, {"n": COUNT, **EVENTS[name]})
        if wrong:
            raise ProtocolFault("bad_field", f"{name}: {wrong}")
        if name == "hello" and event["schema"] != SCHEMA:
            raise ProtocolFault("wrong_schema", f"the agent speaks schema {event['schema']}, this host {SCHEMA}")
        if name == "block":
            _check_block(event)
        if name == "energy":
            _check_energy_window(event)
        if event["n"] != self.count:
            raise ProtocolFault("out_of_order", f"event {event['n']} came where {self.count} was expected, {_quote(line)}")
        self.count += 1
        self.started = True
        self.ended = name in TERMINAL
        return event


def _parse(line: bytes) -> Dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolFault("not_text", _quote(line)) from None
    try:
        event = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ProtocolFault("not_json", _quote(line)) from None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ProtocolFault("not_an_event", _quote(line))
    if event["event"] not in EVENTS:
        raise ProtocolFault("unknown_event", f"{event['event']!r:.40}; known events: {', '.join(EVENTS)}")
    return event


def _refuse_constant(word: str) -> float:
    """For NaN and Infinity, which Python's JSON takes."""
    raise ValueError(f"{word} is not a number in JSON")


def _check_block(block: Dict[str, Any]) -> None:
    lengths = {name: len(block[name]) for name in ("wall_ns", "cpu_ns", "wait_ns") if block[name] is not None}
    if len(set(lengths.values())) != 1 or not block["wall_ns"] or min(block["wall_ns"]) == 0:
        raise ProtocolFault("bad_field", f"block: wall_ns must be positive, and all lists equally long: {lengths}")


def _check_energy_window(energy: Dict[str, Any]) -> None:
    at_ns, lengths = energy["at_ns"], {len(series) for series in energy["values"].values()}
    if len(at_ns) < 2 or at_ns != sorted(set(at_ns)) or lengths - {len(at_ns)}:
        raise ProtocolFault("bad_field", f"energy: at_ns must grow, and all values be as long as it: {len(at_ns)}, {sorted(lengths)}")


def _quote(line: bytes) -> str:
    return f"{line[:60]!r:.80}"
