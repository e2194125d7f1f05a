"""bench-on-device and probe-device as stages: files in, files out, with a format that sleeps and one real ONNX file."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config.schema import Bench, Budget, Config, Format, Plugin, Train, Variant, Warmup, to_plain
from edgewise.devices import local
from edgewise.errors import ConfigError, DeviceError
from stages import bench_on_device, probe_device
from tests.conftest import ROOT
from tests.unit.test_agent import write_onnx

pytestmark = pytest.mark.lengthy  # agents that run, and waits for them

FAKE = "tests.support.fake_format"
LOCAL = Plugin("local", "edgewise.devices.local", to_plain(local.Settings()))
BENCH = Bench(
    "smoke", processes=2, max_processes=2, block_s=0.05, min_samples=10, claims=False, max_s=5.0, warmup=Warmup(min_s=0.0, max_s=0.05)
)


def make_data() -> None:
    folder = Path("models/data")
    (folder / "inputs").mkdir(parents=True)
    np.save(folder / "inputs/image.npy", np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32))
    np.save(folder / "targets.npy", np.zeros(20, np.int64))
    artifact.write_json(folder / "splits.json", {"train": [0], "validation": [1], "calibration": [2], "test": list(range(3, 20))})
    artifact.write(folder, Manifest(kind="data", inputs=(Port("image", (None, 8), "float32"),), preprocessing={"kind": "tensor"}))


def make_variant(name: str, does: dict, module: str = FAKE) -> Variant:
    folder = Path("models/variants") / name
    folder.mkdir(parents=True)
    if does.get("status") == "failed":
        artifact.write(folder, Manifest(kind="variant", status="failed", reason=does["reason"]))
    else:
        (folder / "model.json").write_text(json.dumps(does))
        artifact.write(folder, Manifest(kind="variant", format="fake", scheme="fp32"))
    return Variant(name, "fake", "fp32", module)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """bench({"variant": what it does}, name) writes a project and runs both stages; returns the record of `name`."""
    monkeypatch.chdir(tmp_path)

    def run(does: dict, name: str, *, settings: Bench = BENCH, device: Plugin = LOCAL) -> dict:
        if not Path("models/data").exists():
            make_data()
            configure({variant: make_variant(variant, d) for variant, d in does.items()}, settings, device)
        monkeypatch.setattr(sys, "argv", ["bench", name])
        probe_device.main()
        bench_on_device.main()
        return json.loads(Path(f"metrics/bench/{name}.json").read_text())

    return run


def configure(variants: dict[str, Variant], settings: Bench = BENCH, device: Plugin = LOCAL) -> None:
    plugin = Plugin("digits", "edgewise.data.digits")
    config = Config(
        0,
        plugin,
        plugin,
        Train("default"),
        device,
        settings,
        Budget("none"),
        next(iter(variants)),
        variants,
        {"fake": Format(FAKE, used=True)},
    )
    Path("models").mkdir(exist_ok=True)
    Path("models/config.yaml").write_text(yaml.safe_dump(to_plain(config)))


def test_the_ratio_of_two_known_sleepers(bench):
    record = bench({"fake-a": {"sleep_ms": 40}, "fake-b": {"sleep_ms": 10}}, "fake-b")
    assert record["status"] == "ok" and record["reference"] == "fake-a" and record["latency"]["stop"] == "budget"
    assert 0.15 < record["latency"]["ratio_to_reference"] < 0.4, "a quarter; wide, since a test machine may be busy"
    assert 10 <= record["latency"]["p50_ms"] < 40 and record["latency"]["ratio_ci95"] is None
    memory = record["memory"]
    assert memory["peak_rss_bytes"] == memory["baseline_rss_bytes"] + memory["peak_rss_above_baseline_bytes"]
    device = json.loads(Path("metrics/device.json").read_text())
    runtimes = json.loads(Path("metrics/runtimes.json").read_text())
    assert record["conditions"]["device_fingerprint"] == device["fingerprint"] and "packages" not in device["facts"]
    assert runtimes["packages"].keys() == {"numpy", "fake-runtime"}
    assert isinstance(records.read(records.BenchResult, Path("metrics/bench/fake-b.json")), records.BenchResult)
    assert not list(Path("models/.tmp").iterdir())


def test_each_variant_has_samples_of_its_own(bench):
    """Nothing is carried from one variant to the next, and the reference against itself is two sets of processes."""
    both = {"fake-a": {"sleep_ms": 8}, "fake-b": {"sleep_ms": 2}}
    for name in both:
        bench(both, name)
    raw = {name: json.loads(Path(f"models/bench/{name}/samples.json").read_text()) for name in both}
    for content in raw.values():
        assert len(content["variant"]) == len(content["reference"]) == 2 and len(content["passes"]) == 1
    walls = [
        event["wall_ns"]
        for r in raw.values()
        for side in ("variant", "reference")
        for run in r[side]
        for event in run
        if event["event"] == "block"
    ]
    assert len(walls) == 8 and len({tuple(wall) for wall in walls}) == 8
    again = json.loads(Path("metrics/bench/fake-a.json").read_text())
    assert 0.6 < again["latency"]["ratio_to_reference"] < 1.6 and again["variant"] == again["reference"] == "fake-a"


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ({"status": "failed", "reason": "covers 0.05 % of the weights"}, "covers 0.05 %"),
        ({"load": "abort"}, "fake-b on the device: the run ended with SIGABRT"),
        ({"load": "refuse"}, "operator Frobnicate"),
    ],
)
def test_a_variants_own_failure_is_recorded(bench, does, reason):
    record = bench({"fake-a": {"sleep_ms": 1}, "fake-b": does}, "fake-b")
    assert record["status"] == "failed" and reason in record["reason"]
    assert artifact.read(Path("models/bench/fake-b")).status == "failed"


RUNNER = """
from tests.support.fake_format.run import *
RUNTIME, PACKAGE = "no_such_runtime", "{package}"
"""


@pytest.fixture
def lacking(tmp_path, monkeypatch):
    """lacking(PACKAGE): the module of a format whose runtime cannot be imported, on the device either."""

    def make(package: str) -> str:
        folder = tmp_path / "elsewhere" / "lacking_format"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "run.py").write_text(RUNNER.format(package=package))
        monkeypatch.syspath_prepend(str(folder.parent))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder.parent), str(ROOT)]))
        return "lacking_format"

    yield make
    for name in [name for name in sys.modules if name.startswith("lacking_format")]:
        del sys.modules[name]


def bench_lacking(bench, module: str, which: int, name: str = "fake-b") -> dict:
    """Bench `name` where variant number `which` of the two is of a format whose runtime cannot be imported."""
    make_data()
    modules = [module if number == which else FAKE for number in range(2)]
    names = ("fake-a", "fake-b")
    configure({n: make_variant(n, {"sleep_ms": 1}, m) for n, m in zip(names, modules, strict=True)})
    config = yaml.safe_load(Path("models/config.yaml").read_text())
    config["formats"]["lacking"] = {"module": module, "used": True, "convert": {}}
    Path("models/config.yaml").write_text(yaml.safe_dump(config))
    return bench({}, name)


@pytest.mark.parametrize(("which", "whose"), [(1, "fake-b"), (0, "fake-a")])
def test_a_runtime_that_the_device_lacks_fails_the_variants_that_need_it(bench, lacking, which, whose):
    """Of the reference: every variant, since nothing can be compared. metrics/runtimes.json outdates it when the runtime is there."""
    record = bench_lacking(bench, lacking("no-such-runtime"), which)
    assert record["status"] == "failed" and record["reason"].startswith(f"{whose} on the device: ")
    assert "pip install no-such-runtime" in record["reason"]
    runtimes = json.loads(Path("metrics/runtimes.json").read_text())
    assert runtimes["variants"][whose] == "no-such-runtime missing"


def test_a_runtime_that_is_installed_and_cannot_be_imported_ends_the_run(bench, lacking):
    with pytest.raises(DeviceError) as caught:
        bench_lacking(bench, lacking("pyyaml"), 1)
    assert caught.value.fault == "runtime_missing" and not Path("metrics/bench/fake-b.json").exists()


def test_another_runtime_on_the_device_changes_no_fact_of_the_machine(bench, lacking):
    bench({"fake-a": {"sleep_ms": 1}}, "fake-a")
    before = json.loads(Path("metrics/device.json").read_text())
    config = yaml.safe_load(Path("models/config.yaml").read_text())
    config["formats"]["lacking"] = {"module": lacking("pyyaml"), "used": True, "convert": {}}
    Path("models/config.yaml").write_text(yaml.safe_dump(config))
    bench({"fake-a": {"sleep_ms": 1}}, "fake-a")
    assert json.loads(Path("metrics/device.json").read_text()) == before
    assert "pyyaml" in json.loads(Path("metrics/runtimes.json").read_text())["packages"]


@pytest.mark.parametrize(("act", "fault"), [("kill", "killed"), ("hang", "deadline")])
def test_a_failure_of_the_surroundings_is_never_recorded(bench, monkeypatch, act, fault):
    if act == "hang":
        monkeypatch.setattr("edgewise.measure.runs.START_S", 0.0)
    with pytest.raises(DeviceError) as caught:
        bench({"fake-a": {"sleep_ms": 1}, "fake-b": {"load": act}}, "fake-b", settings=replace(BENCH, max_s=1.5))
    assert caught.value.fault == fault
    assert not Path("metrics/bench/fake-b.json").exists() and not Path("models/bench/fake-b").exists()


def test_end_to_end_needs_pictures(bench):
    with pytest.raises(ConfigError, match="end_to_end' needs pictures"):
        bench({"fake-a": {}}, "fake-a", settings=replace(BENCH, scope="end_to_end"))


def test_an_unknown_variant_is_named(bench):
    with pytest.raises(ConfigError, match="fake-c: unknown variant; allowed: fake-a"):
        bench({"fake-a": {}}, "fake-c")


@pytest.mark.framework
def test_a_real_runtime(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_data()
    variant = make_variant("onnx-fp32", {}, "edgewise.formats.onnx")
    write_onnx(Path("models/variants/onnx-fp32"))
    configure({"onnx-fp32": variant}, replace(BENCH, processes=3, max_processes=3, claims=True))
    monkeypatch.setattr(sys, "argv", ["bench", "onnx-fp32"])
    probe_device.main()
    bench_on_device.main()
    record = json.loads(Path("metrics/bench/onnx-fp32.json").read_text())
    low, high = record["latency"]["ratio_ci95"]
    assert record["status"] == "ok" and low <= record["latency"]["ratio_to_reference"] <= high
    assert record["conditions"]["interleave"] == BENCH.interleave
    hello = json.loads(Path("models/bench/onnx-fp32/samples.json").read_text())["variant"][0][0]
    assert set(hello["modules"]) <= {"numpy", "onnxruntime"}


def test_a_probe_prints_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    configure({"fake-a": make_variant("fake-a", {})})
    probe_device.main()
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(said) == ["board", "cpu", "memory", "python", "governor", "sensors", "limits"]
    assert f"{os.cpu_count()}" in said["cpu"] and "numpy 2" in said["python"] and said["limits"].startswith("memory by ")
