"""Whatever an agent writes: an event, or one named error."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.agent import protocol
from edgewise.agent.protocol import LINE_PROBLEMS, EventReader, Fault, ProtocolFault
from tests.conftest import ROOT

HELLO = {"schema": 1, "python": "3.9.2", "versions": {}, "modules": ["numpy"], "cpus": [0, 1]}
BLOCK = {"wall_ns": [5, 6], "cpu_ns": [4, 4], "wait_ns": [0, 1], "before": {}, "after": {}}


def lines(*events: tuple) -> list[bytes]:
    return [protocol.encode_event(n, name, fields) for n, (name, fields) in enumerate(events)]


def read(given: list[bytes]) -> list[dict]:
    reader = EventReader()
    found = [reader.parse_line(line) for line in given]
    reader.check_end()
    return [event for event in found if event]


GOOD = lines(("hello", HELLO), ("block", BLOCK), ("done", {}))


def test_reads_events_and_skips_a_login_shells_noise():
    assert [e["event"] for e in read([b"Welcome to Raspbian\n", b"\xff\xfe\n", *GOOD])] == ["hello", "block", "done"]


def swap(index: int, line: bytes) -> list[bytes]:
    return [*GOOD[:index], line, *GOOD[index + 1 :]]


BROKEN = {
    "truncated": swap(1, GOOD[1][:-20]),
    "not_text": swap(1, b'{"event": "\xff\xfe"}\n'),
    "not_json": swap(1, b"Segmentation fault\n"),
    "not_an_event": swap(1, b"[1, 2]\n"),
    "wrong_schema": swap(0, protocol.encode_event(0, "hello", {**HELLO, "schema": 7})),
    "unknown_event": swap(1, protocol.encode_event(1, "blok", BLOCK)),
    "bad_field": swap(1, protocol.encode_event(1, "block", {**BLOCK, "wall_ns": [5]})),
    "out_of_order": [GOOD[0], GOOD[2]],
    "after_end": [*GOOD, GOOD[2]],
    "no_hello": GOOD[1:],
    "too_long": swap(1, b"x" * (protocol.MAX_LINE_BYTES + 1)),
}


@pytest.mark.parametrize("problem", LINE_PROBLEMS)
def test_each_kind_of_problem_has_its_name(problem):
    with pytest.raises(ProtocolFault) as caught:
        read(BROKEN[problem])
    assert caught.value.problem == problem and caught.value.word == "protocol"
    assert problem.replace("_", " ") in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "fields",
    [
        {"wall_ns": [5, float(6)]},
        {"wall_ns": [-5, 6]},
        {"wall_ns": [0, 6]},
        {"wall_ns": []},
        {"wall_ns": "56"},
        {"wall_ns": None},
        {"wall_ns": [True, 6]},
        {"wait_ns": [1]},
        {"before": []},
        {"before": {"steal_ns": "5"}},
        {"after": {"steal_ns": True}},
        {"after": {"steal_ns": [5]}},
    ],
)
def test_a_block_that_is_no_measurement_gives_no_number(fields):
    with pytest.raises(ProtocolFault, match="bad field"):
        read([GOOD[0], protocol.encode_event(1, "block", {**BLOCK, **fields})])


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("memory", {"mark": "load", "bytes": {"rss": "5"}, "peak_reset": True, "major_faults": 0}),
        ("memory", {"mark": "load", "bytes": {"rss": None}, "peak_reset": True, "major_faults": 0}),
        ("energy", {"phase": "idle", "at_ns": [1, 2], "values": {"board_w": 5}, "runs": 0}),
        ("energy", {"phase": "idle", "at_ns": [1, 2], "values": {"board_w": [1.0, "2"]}, "runs": 0}),
        ("energy", {"phase": "idle", "at_ns": [1, 2], "values": {"board_w": [1.0]}, "runs": 0}),
        ("energy", {"phase": "idle", "at_ns": [1, 1], "values": {"board_w": [1.0, 2.0]}, "runs": 0}),
        ("energy", {"phase": "idle", "at_ns": [1], "values": {"board_w": [1.0]}, "runs": 0}),
    ],
)
def test_readings_that_are_no_numbers_or_have_no_time_are_no_event(event, fields):
    with pytest.raises(ProtocolFault, match="bad field"):
        read([GOOD[0], protocol.encode_event(1, event, fields)])


def test_readings_of_sensors_that_came_and_went_are_an_event():
    energy = {"phase": "idle", "at_ns": [1, 2, 3], "values": {"board_w": [1.0, None, 2], "rapl_uj": [1, 2, 3]}, "runs": 0}
    block = {**BLOCK, "before": {"steal_ns": None}, "after": {"steal_ns": 5.5}}
    assert len(read(lines(("hello", HELLO), ("energy", energy), ("block", block)))) == 3


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("error", {"fault": ["killed"], "phase": "run", "message": ""}),
        ("error", {"fault": {}, "phase": "run", "message": ""}),
        ("cooled", {"waited_s": 10**400, "hottest_mdegc": None}),
        ("loaded", {"wall_ns": 10**400}),
    ],
)
def test_values_that_cannot_be_looked_up_or_are_too_large_are_no_event(event, fields):
    with pytest.raises(ProtocolFault, match="bad field"):
        read([GOOD[0], protocol.encode_event(1, event, fields)])


def test_nan_is_no_number():
    with pytest.raises(ProtocolFault, match="not json"):
        read([GOOD[0], GOOD[1].replace(b"5", b"NaN", 1)])


def test_noise_without_end_is_an_error():
    with pytest.raises(ProtocolFault, match="no hello"):
        read([b"still booting\n"] * 2000)


@settings(deadline=None)
@given(st.integers(0, 2), st.integers(0, 400), st.binary(max_size=12))
def test_any_damage_to_a_line_is_an_event_or_a_protocol_fault(index, place, damage):
    line = GOOD[index][:place] + damage + GOOD[index][place + len(damage) :]
    try:
        read(swap(index, line))
    except ProtocolFault as fault:
        assert fault.problem in LINE_PROBLEMS


@settings(max_examples=40, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_json_is_an_event_or_a_protocol_fault(content):
    with pytest.raises(ProtocolFault):
        read([GOOD[0], json.dumps(content).encode() + b"\n"])


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({}, "not a job"),
        ([], "not a job"),
        ({"kind": "dance"}, "kinds are probe, cool_down, latency"),
        ({"kind": "probe", "schema": 2}, "speaks schema 1"),
        ({"kind": "probe", "schema": 1, "packages": []}, "deadline_s is missing"),
        ({"kind": "probe", "schema": 1, "deadline_s": 1, "packages": [1]}, "required: list of strings"),
    ],
)
def test_a_wrong_job_is_refused(job, message):
    with pytest.raises(ValueError, match=message):
        protocol.check_job(job)


def test_every_fault_says_what_to_do():
    for word, step in protocol.FAULTS.items():
        assert step in str(Fault(word, "seen")) and Fault(word, "seen").word == word
    assert set(protocol.DETERMINISTIC) < set(protocol.FAULTS)


@pytest.mark.parametrize("path", [*sorted((ROOT / "edgewise/agent").rglob("*.py"))], ids=lambda p: p.name)
def test_what_runs_on_the_device_is_short_and_old_enough(path: Path):
    import ast

    text = path.read_text()
    assert len(text.splitlines()) <= 400
    ast.parse(text, feature_version=(3, 9))
    assert not text.strip() or "from __future__ import annotations" in text
