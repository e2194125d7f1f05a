"""The agent as a program: what it imports, what it reports, and how it ends."""

import json
import os
import subprocess
import sys
import time
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from edgewise.agent import jobs, latency, machine
from edgewise.agent.protocol import Fault, encode_job
from edgewise.devices.local import COMMAND, LocalDevice
from tests.conftest import ROOT
from tests.support.fake_format.run import HANG_S

pytestmark = pytest.mark.lengthy  # agents that run, and waits for them

WARMUP = {"min_runs": 3, "min_s": 0.0, "max_s": 0.05, "spread": 0.05}
TIMING = {"warmup": WARMUP, "blocks": 2, "block_s": 0.05, "min_runs": 4}
GUARD = """
import runpy, sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        known = name.split(".")[0] in sys.stdlib_module_names or name in {packages!r}
        if not known and not any(name == a or name.startswith(a + ".") for a in {allowed!r}):
            raise ModuleNotFoundError("the guard blocks " + name)
sys.meta_path.insert(0, Guard())
runpy.run_module("edgewise.agent.program", run_name="__main__")
"""


def make_job(folder, kind="latency", runner="tests.support.fake_format.run", does=None, **more) -> dict:
    np.savez(folder / "inputs.npz", image=np.arange(24, dtype=np.float32).reshape(3, 2, 4))
    if does is not None:
        (folder / "model.json").write_text(json.dumps(does))
    job = {"kind": kind, "runner": runner, "model": str(folder), "settings": {"threads": 1}, "inputs": str(folder / "inputs.npz")}
    job |= {"scope": "model", "preprocessing": None, "answer": None}
    return job | (TIMING if kind == "latency" else {}) | ({"runs": 2} if kind == "memory" else {}) | more


def run(job: dict, deadline_s: float = 120.0, command=COMMAND) -> list[dict]:
    return list(LocalDevice(command).run(job, deadline_s))


def write_onnx(folder, features: int = 8) -> None:
    from onnx import TensorProto, helper, save

    node = helper.make_node("Softmax", ["image"], ["logits"])
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", features]) for name in ("image", "logits")]
    graph = helper.make_graph([node], "tiny", [shapes[0]], [shapes[1]])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), folder / "model.onnx")


def test_latency_reports_raw_samples(tmp_path):
    events = run(make_job(tmp_path, does={"sleep_ms": 3}))
    assert [e["event"] for e in events] == ["hello", "loaded", "first_inference", "warmup", "block", "block", "done"]
    for block in (e for e in events if e["event"] == "block"):
        assert len(block["wall_ns"]) == len(block["cpu_ns"]) == len(block["wait_ns"]) >= 4
        assert sum(block["wall_ns"]) >= 0.9 * 0.05e9
        assert 3e6 <= np.median(block["wall_ns"]) < 60e6, "sleeps 3 ms, on a machine that may be busy"
        assert min(block["cpu_ns"]) < 1.5e6, "a sleeping model burns nothing; some kernels charge whole ticks of 4 ms to some of the runs"
        assert block["after"]["switches_voluntary_count"] - block["before"]["switches_voluntary_count"] >= len(block["wall_ns"])


def test_cpu_time_of_a_busy_model(tmp_path):
    blocks = [e for e in run(make_job(tmp_path, does={"burn_ms": 3})) if e["event"] == "block"]
    cpu, wait, wall = (np.concatenate([b[key] for b in blocks]) for key in ("cpu_ns", "wait_ns", "wall_ns"))
    assert np.median((cpu + wait) / wall) == pytest.approx(1.0, abs=0.1), "it computes or waits for a processor"


def test_noise_of_a_runtime_on_stdout_does_not_reach_the_protocol(tmp_path):
    events = run(make_job(tmp_path, does={"print": '{"event": "done", "n": 3}'}))
    assert events[-1]["event"] == "done" and len(events) == 7


@pytest.mark.framework
def test_only_the_standard_library_numpy_and_the_runtime(tmp_path):
    write_onnx(tmp_path)
    allowed = ("numpy", "onnxruntime", "edgewise.agent", "edgewise.formats.onnx.run")
    command = (sys.executable, "-c", GUARD.format(allowed=allowed, packages=("edgewise", "edgewise.formats", "edgewise.formats.onnx")))
    np.savez(tmp_path / "feeds.npz", image=np.ones((2, 8), np.float32))
    job = make_job(tmp_path, runner="edgewise.formats.onnx.run") | {"inputs": str(tmp_path / "feeds.npz")}
    hello = run(job, command=command)[0]
    assert hello["versions"]["onnxruntime"] and "onnxruntime" in hello["modules"]
    assert set(hello["modules"]) <= {"numpy", "onnxruntime"}
    with pytest.raises(Fault, match="guard blocks hypothesis"):
        run({**job, "runner": "hypothesis"}, command=command)


def test_outputs_come_back_bit_for_bit(tmp_path):
    events = run(make_job(tmp_path, "outputs", does={}))
    given = [e["arrays"]["logits"] for e in events if e["event"] == "outputs"]
    arrays = [np.frombuffer(b64decode(g["base64"]), g["dtype"]).reshape(g["shape"]) for g in given]
    np.testing.assert_array_equal(arrays, np.arange(24, dtype=np.float32).reshape(3, 1, 8)[:, :, :2])


def test_end_to_end_prepares_the_raw_picture(tmp_path):
    spec = {"kind": "image", "size": [4, 4], "channels": 1, "resize": "stretch", "interpolation": "bilinear", "scale": 1 / 255}
    spec |= {"mean": [0.5], "std": [0.5], "layout": "NCHW", "dtype": "float32"}
    job = make_job(tmp_path, "outputs", does={}, scope="end_to_end", preprocessing=spec)
    np.savez(tmp_path / "inputs.npz", image=np.full((2, 4, 4, 1), 255, np.uint8))
    answers = [e["arrays"]["logits"] for e in run(job) if e["event"] == "outputs"]
    assert [a["shape"] for a in answers] == [[1], [1]], "after post-processing: the class of each sample"


@pytest.mark.parametrize("does", [{"hold_mib": 200}, {"run": "fill", "run_mib": 200}])
def test_peak_memory_of_a_known_allocation(tmp_path, does):
    marks = {e["mark"]: e["bytes"] for e in run(make_job(tmp_path, "memory", does=does)) if e["event"] == "memory"}
    assert list(marks) == ["baseline", "load", "first_inference", "runs", "release"]
    assert marks["release"]["peak"] - marks["baseline"]["rss"] == pytest.approx(200 << 20, rel=0.03)
    assert marks["baseline"]["peak"] <= marks["baseline"]["rss"] * 1.02, "the peak of the imports is forgotten"
    assert marks["release"]["rss"] - marks["baseline"]["rss"] < 20 << 20, "all is given back"
    for mark in marks.values():
        assert mark["anonymous"] + mark["file"] + mark["shared"] == pytest.approx(mark["rss"], rel=0.02)


@pytest.mark.parametrize(
    ("load", "deadline_s", "word", "message"),
    [
        ("refuse", 120.0, "model_rejected", "load: ValueError: this file holds operator Frobnicate"),
        ("abort", 120.0, "model_aborted", "SIGABRT.*run.py"),
        ("kill", 120.0, "killed", "SIGKILL"),
        ("hang", 1.5, "deadline", "more than 1.5 s"),
    ],
)
def test_each_end_has_its_name(tmp_path, load, deadline_s, word, message):
    start = time.monotonic()
    with pytest.raises(Fault, match=message) as caught:
        run(make_job(tmp_path, does={"load": load}), deadline_s)
    assert caught.value.word == word and "\n" not in str(caught.value)
    assert time.monotonic() - start < HANG_S / 10


@pytest.mark.parametrize(
    ("companions", "command"),
    [
        ("", "pip install no-such-runtime"),
        (
            "COMPANIONS = {'no_such_base': ('no-such-base', '1')}",
            "No module named 'no_such_base'.*pip install no-such-base no-such-runtime",
        ),
        ("COMPANIONS = {'json': ('json', '1')}", "No module named 'no_such_runtime'.*pip install json no-such-runtime"),
    ],
)
def test_a_missing_runtime_names_the_pip_command(tmp_path, companions, command):
    (tmp_path / "lonely.py").write_text(f"RUNTIME = 'no_such_runtime'\nPACKAGE = 'no-such-runtime'\n{companions}\n")
    code = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_module('edgewise.agent.program', run_name='__main__')"
    with pytest.raises(Fault, match=command) as caught:
        run(make_job(tmp_path, runner="lonely"), command=(sys.executable, "-c", code))
    assert caught.value.word == "runtime_missing"


def test_a_measured_process_holds_no_module_that_it_does_not_need():
    """They would count in every peak: hashing takes 4 MB, the versions of installed packages 3."""
    code = (
        "import sys, edgewise.agent.program; print(sorted({'hashlib', 'importlib.metadata', 'email', 'ssl', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_ends_when_the_host_is_gone(tmp_path):
    job = make_job(tmp_path, does={"sleep_ms": 1}, blocks=1, block_s=600.0)
    agent = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    agent.stdin.write(encode_job(deadline_s=600, **job))
    agent.stdin.flush()
    assert b"hello" in agent.stdout.readline()
    agent.stdin.close()
    assert agent.wait(timeout=120) != 0
    agent.stdout.close()


def test_probe_tells_stable_facts_only():
    first, second = (run({"kind": "probe", "packages": ["onnxruntime", "no-such"]})[1]["facts"] for _ in range(2))
    assert first == second and machine.fingerprint(first) == machine.fingerprint(second)
    assert first["packages"]["no-such"] is None and first["packages"]["onnxruntime"]
    assert first["cores"] >= first["cores_allowed"] >= 1 and first["ram_mib"] > 100 and first["cpu"] != "unknown"
    assert os.uname().nodename not in json.dumps(first).replace('"vm', "")


LATE = """
import sys
from pathlib import Path
from edgewise.agent import jobs

class Stream:
    phase = ""
    def send(self, *_, **__): pass

Path(sys.argv[1], "model.json").write_text("{}")
job = {"runner": "tests.support.fake_format.run", "kind": "latency", "model": sys.argv[1], "settings": {"threads": 1}, "scope": "model"}
runner = jobs.import_runner(Stream(), job)
known = set(sys.modules)
jobs.load_model(Stream(), runner, job, [])
print(sorted(set(sys.modules) - known))
"""


def test_loading_imports_nothing_that_would_count_as_the_models_time_and_memory(tmp_path):
    done = subprocess.run([sys.executable, "-c", LATE, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_block_leaves_no_file_open():
    """A run of hundreds of blocks would come to the limit of open files, and every sensor would seem to have gone."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        latency.measure_block(lambda i: None, 0.0, 1, [])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_agent_whose_host_has_gone_ends_without_a_traceback():
    pipe = subprocess.PIPE
    with subprocess.Popen(COMMAND, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        process.stdout.close()
        process.stdin.write(encode_job(kind="probe", deadline_s=120.0, packages=[]))
        process.stdin.flush()
        assert process.stderr.read() == b""


def test_end_to_end_decodes_boxes_where_the_task_does():
    """One box of the input, in pixels of a picture twice as wide as it is high."""
    boxes = np.array([[[10, 10, 30, 20, 0.9, 1], [0, 0, 5, 5, 0.1, 0]]], np.float32)

    class Detector:
        def run(self, feeds):
            assert feeds["image"].shape == (1, 3, 40, 40)
            return {"out": boxes}

    spec = {"kind": "image", "size": [40, 40], "channels": 3, "resize": "letterbox", "interpolation": "bilinear", "crop_share": 1.0}
    spec |= {"pad_value": 114, "anchor": "corner", "stride": None, "scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3}
    spec |= {"order": "RGB", "layout": "NCHW", "dtype": "float32"}
    decoding = {"head": "end_to_end", "outputs": {"predictions": "out"}}
    answer = {"answer": "boxes", "threshold": 0.25, "decoding": decoding, "labels": ["cat", "dog"]}
    job = {"kind": "latency", "scope": "end_to_end", "preprocessing": spec, "answer": answer}
    found = jobs.make_call(Detector(), job, [{"image": np.zeros((1, 40, 80, 3), np.uint8)}])(0)
    assert found == {"objects": [{"label": "dog", "score": 0.9, "box": [20.0, 20.0, 60.0, 40.0]}]}


def test_end_to_end_makes_the_map_of_classes_at_the_pictures_size():
    """Of a net that works at half the size; the right half is class 1."""
    values = np.zeros((1, 2, 20, 20), np.float32)
    values[:, 1, :, 10:] = 1

    class Segmenter:
        def run(self, feeds):
            return {"aux": np.zeros((1, 3), np.float32), "map": values - 0.5 * (np.arange(2) == 1).reshape(1, 2, 1, 1)}

    spec = {"kind": "image", "size": [40, 40], "channels": 3, "resize": "stretch", "interpolation": "bilinear", "crop_share": 1.0}
    spec |= {"scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3, "order": "RGB", "layout": "NCHW", "dtype": "float32"}
    answer = {"answer": "map", "output": "map", "channels": "first", "threshold": 0.0, "labels": ["sky", "sea"]}
    job = {"kind": "latency", "scope": "end_to_end", "preprocessing": spec, "answer": answer}
    found = jobs.make_call(Segmenter(), job, [{"image": np.zeros((1, 30, 80, 3), np.uint8)}])(0)
    assert found == {"pixels_share": {"sky": 0.5, "sea": 0.5}}
