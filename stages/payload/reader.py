"""The host's end of the protocol: lines become events, anything else one named error."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional

from stages.payload.faults import Fault
from stages.payload.protocol import EVENTS, MAX_LINE_BYTES, MAX_NOISE_LINES, SCHEMA, TERMINAL, wrong_field

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
