"""The profile pass: from what a runtime says of its operators to profile.json, and a trace that a browser loads."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewise.formats.onnx import profile as onnx_profile
from edgewise.formats.tflite.profile import DELEGATE, delegated
from edgewise.measure import passes
from edgewise.measure.runs import PROFILE_RUNS, PROFILE_WARMUP_RUNS, Run
from tests.support.fake_format.profile import operators
from tests.unit.test_agent import make_job, run, write_onnx
from tests.unit.test_bench_stage import BENCH, bench  # noqa: F401

pytestmark = pytest.mark.lengthy  # agents that run, and waits for them


def runs(*times_ns: tuple[int, ...]) -> Run:
    """One run for each tuple: a Conv, a Cast and a Conv that took so long; an inference takes 100 us more."""
    events = []
    for times in times_ns:
        ops = [{**op, "time_ns": time} for op, time in zip(operators(0), times, strict=True)]
        events.append({"event": "operators", "wall_ns": sum(times) + 100_000, "operators": ops})
    return Run((*events, {"event": "trace", "content": None}))


def test_times_are_medians_with_quartiles_and_shares_add_up():
    found = passes.make_profile(runs(*[(600_000, 100_000, 200_000)] * 4, (60_000_000, 100_000, 200_000)), None)
    assert found["status"] == "measured" and found["runs"] == 5
    assert found["inference"] == {"ms": 1.0, "ms_quartiles": [1.0, 1.0]} and found["outside_share"] == pytest.approx(0.1)
    assert [(op["name"], op["ms"], op["calls"]) for op in found["operators"]] == [
        ("first", 0.6, 1),
        ("second", 0.2, 1),
        ("between", 0.1, 1),
    ]
    assert [op["share"] for op in found["operators"]] == pytest.approx([6 / 9, 2 / 9, 1 / 9]), "one disturbed run changes no share"
    conv, cast = found["types"]
    assert (conv["type"], conv["calls"], conv["share"], conv["dtype"]) == ("Conv", 2, pytest.approx(8 / 9), "int8")
    assert cast["converts"] and cast["ms_quartiles"] == [0.1, 0.1]


def test_a_runtime_without_times_gives_none_and_says_why():
    found = passes.make_profile(runs(*[(0, 0, 0)] * 2), "the clock is broken")
    assert (found["status"], found["reason"], found["outside_share"]) == ("unsupported", "the clock is broken", None)
    blank = Run(tuple({**e, "operators": [{**op, "time_ns": None} for op in e.get("operators", ())]} for e in runs((1, 1, 1)).events))
    found = passes.make_profile(blank, "the clock is broken")
    assert {op["share"] for op in found["operators"]} == {op["ms"] for op in found["operators"]} == {None}
    assert [op["kernel"] for op in found["operators"]] == ["fast", None, "fast"]


@pytest.mark.parametrize("asked", [True, False])
def test_the_stage_writes_a_profile_only_where_it_is_asked_for(bench, asked):  # noqa: F811
    record = bench({"fake-a": {"sleep_ms": 1}}, "fake-a", settings=replace(BENCH, profile=asked))
    folder = Path("models/bench/fake-a")
    assert (folder / "profile.json").exists() == (folder / "trace.json").exists() == asked
    raw = json.loads((folder / "samples.json").read_text())
    assert not any(event["event"] == "operators" for passed in raw["passes"] for event in passed), (
        "a pass of its own, with files of its own"
    )
    assert record["latency"]["samples"] == len([ns for r in raw["variant"] for e in r if e["event"] == "block" for ns in e["wall_ns"]])
    if asked:
        found = json.loads((folder / "profile.json").read_text())
        assert found["runs"] == PROFILE_RUNS and [op["name"] for op in found["operators"]] == ["first", "second", "between"]
        assert found["operators"][0]["ms"] == 0.5 and found["inference"]["ms"] >= 1.0


def test_the_warm_up_is_left_out_of_a_profile(tmp_path):
    job = make_job(tmp_path, "profile", "tests.support.fake_format.profile", does={}, warmup_runs=PROFILE_WARMUP_RUNS, runs=4)
    told = [event["operators"][1]["time_ns"] for event in run(job) if event["event"] == "operators"]
    assert told == [200_000 + 1000 * (1 + PROFILE_WARMUP_RUNS + number) for number in range(4)]


@pytest.mark.framework
def test_the_trace_of_onnx_runtime_is_one_that_chrome_and_perfetto_load(tmp_path):
    """The JSON Array Format of "Trace Event Format": complete events (ph X) with name, ts and dur in us, pid and tid."""
    write_onnx(tmp_path)
    np.savez(tmp_path / "feeds.npz", image=np.ones((2, 8), np.float32))
    job = make_job(tmp_path, "profile", "edgewise.formats.onnx.profile", warmup_runs=1, runs=3) | {"inputs": str(tmp_path / "feeds.npz")}
    *_, last, _ = run(job)
    events = json.loads(last["content"])
    assert isinstance(events, list) and len([e for e in events if e["name"] == "model_run"]) == 5
    for event in events:
        assert event["ph"] == "X" and isinstance(event["name"], str) and event["ts"] >= 0 and event["dur"] >= 0
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
    assert any(event["args"].get("op_name") == "Softmax" for event in events)


def test_what_runs_inside_a_loop_is_not_counted_twice():
    spans = [("before", 0, 4), ("inner", 5, 2), ("inner", 7, 2), ("loop", 4, 6), ("after", 10, 0), ("after", 10, 3)]
    kept = onnx_profile.outermost([{"name": name, "ts": ts, "dur": dur} for name, ts, dur in spans])
    assert [event["name"] for event in kept] == ["before", "loop", "after", "after"]


def test_the_delegate_took_what_lies_between_its_inputs_and_its_outputs():
    def node(index, name, inputs, outputs):
        return {"index": index, "op_name": name, "inputs": inputs, "outputs": outputs}

    chain = [node(0, "CONV_2D", [0, 90], [1]), node(1, "PADV2", [1, 91], [2]), node(2, "ADD", [2, 0], [3]), node(3, "MEAN", [3], [4])]
    parts = [node(4, DELEGATE, [0, 90], [1]), node(5, DELEGATE, [2, 0], [4])]
    assert delegated(chain + parts) == {0, 2, 3}
    assert delegated(chain) == set()
