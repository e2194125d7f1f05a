"""`engine: auto`: which points are tried, which is kept, what the record, the report, MLflow and the bundle make of it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.artifacts.artifact import Manifest
from edgewise.bundle import contents
from edgewise.config import schema
from edgewise.config.schema import Auto
from edgewise.errors import ConfigError, VariantFailed
from edgewise.measure import tuning
from edgewise.report import table
from edgewise.track import registry, run_set
from stages import bench_on_device, probe_device
from tests.support.fabricate import fabricate, write_report
from tests.support.formats import FORMATS, variant
from tests.unit.test_agent import write_onnx
from tests.unit.test_bench_stage import BENCH, configure, make_data, make_variant
from tests.unit.test_report_findings import add
from tests.unit.test_report_page import PAGE, Structure

pytestmark = pytest.mark.lengthy  # agents that run, and waits for them

CLAIMING = replace(BENCH, name="quick", processes=3, max_processes=3, claims=True)
SLEEPER = {"sleep_ms": 6, "at": {"fast": {"sleep_ms": 2}, "same": {}, "odd": {"load": "refuse"}, "wrong": {"negate": True}}}


def bench(does: dict, goal: str = "latency", settings=CLAIMING, **more) -> dict:
    """The record of a variant with engine auto beside a plain reference."""
    make_data()
    tuned = replace(make_variant("fake-b", does, more.pop("module", "tests.support.fake_format")), auto=Auto(goal, **more))
    configure({"fake-a": make_variant("fake-a", {"sleep_ms": 1}), "fake-b": tuned}, settings)
    probe_device.main()
    sys.argv = ["bench", "fake-b"]
    bench_on_device.main()
    return json.loads(Path("metrics/bench/fake-b.json").read_text())


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])


def test_the_best_point_is_kept_and_measured_and_the_others_say_why_not():
    measured = bench(SLEEPER)
    found = measured["engine_auto"]
    assert found["kept"] == {"speed": "fast"} and found["settings"] == {"threads": 1, "speed": "fast"}
    assert found["reason"].startswith("kept speed=fast: 0.") and found["reason"].endswith("3 further pairs")
    points = {str(list(point["settings"].values())): point for point in found["points"]}
    assert points["[]"]["verdict"] == "plain" and points["['fast']"]["verdict"] == "kept"
    assert "Frobnicate" in points["['odd']"]["refusal"] and points["['odd']"]["ratio"] is None
    assert "computes something else on the device" in points["['wrong']"]["refusal"]
    assert points["['fast']"]["ratio_ci95"][1] < 0.8
    assert measured["latency"]["p50_ms"] < 5, "what is measured is the kept setting"
    raw = json.loads(Path("models/bench/fake-b/samples.json").read_text())
    assert len(raw["engine_auto"]) == 4 * 3 + 2 * 3, "plain, fast, same and other in turns; then fast and plain in pairs"


@pytest.mark.slow
def test_a_setting_that_the_user_named_stays():
    settings = [point["settings"] for point in bench(SLEEPER, fixed=("speed",))["engine_auto"]["points"]]
    assert settings == [{}, {"other": 1}]


@pytest.mark.slow
def test_without_a_better_point_the_plain_settings_stay():
    slower = {name: {"sleep_ms": 9} for name in ("fast", "odd", "wrong")}
    found = bench({"sleep_ms": 3, "at": {**slower, "same": {"sleep_ms": 6}}}, fixed=("other",))["engine_auto"]
    assert found["kept"] == {} and found["reason"].startswith("no difference, plain settings kept; the best other point, ")
    assert [point["verdict"] for point in found["points"]] == ["kept", "worse", "worse", "worse", "worse"]


@pytest.mark.slow
def test_memory_is_another_goal():
    found = bench({"hold_mib": 64, "at": {"fast": {"hold_mib": 16}}}, "memory")["engine_auto"]
    assert found["kept"] == {"speed": "fast"} and "peak memory above the baseline" in found["reason"]


def test_a_profile_that_claims_nothing_tries_nothing():
    found = bench(SLEEPER, settings=replace(BENCH, processes=1, max_processes=1))["engine_auto"]
    assert found["kept"] == {} and "profile smoke claims nothing" in found["reason"] and len(found["points"]) == 1


def test_without_compared_outputs_nothing_is_tried():
    settings = replace(CLAIMING, agreement_samples=0, max_s=1.0, target_half_width=1.0)
    assert "agreement_samples is 0" in bench(SLEEPER, settings=settings)["engine_auto"]["reason"]


def test_a_failure_of_the_plain_settings_is_the_variants_own():
    with pytest.raises(VariantFailed, match="no"):
        tuning.try_point(tuning.Point({}, None), refuse, FakeBar())  # type: ignore[arg-type]
    other = tuning.Point({"speed": "odd"}, None)  # type: ignore[arg-type]
    tuning.try_point(other, refuse, FakeBar())
    assert other.refusal == "no"


def refuse(point):
    raise VariantFailed("no")


class FakeBar:
    def update(self):
        pass


def test_threads_go_down_from_what_the_device_may_use():
    chosen = variant("onnx", "fp32", engine={"auto": "latency"})
    plain = {"threads": 8, **chosen.engine}
    tried = [point["threads"] for point in tuning.make_grid(chosen, plain, cores=4) if "threads" in point]
    assert tried == [4, 2, 1]
    assert {"spinning": False} in tuning.make_grid(chosen, plain, 4)
    assert {"spinning": False} not in tuning.make_grid(chosen, {**plain, "threads": 1}, 4)


@pytest.mark.parametrize("name", FORMATS)
def test_a_grid_is_small_and_of_settings_that_the_format_has(name):
    run = schema.part(variant(name, "fp32").module, "run")
    points = [*run.GRID, *run.GRID_THREADED]
    assert len(points) <= 8  # none where the runtime has nothing but threads
    assert all(value in run.ENGINE[key] for point in points for key, value in point.items())


def test_how_a_user_asks_for_it():
    assert variant("onnx", "fp32", engine="auto").auto == Auto("latency")
    asked = variant("onnx", "fp32", engine={"auto": "memory", "arena": False})
    assert asked.auto == Auto("memory", ("arena",)) and asked.engine["arena"] is False and "auto" not in asked.engine
    assert variant("onnx", "fp32", engine={"auto": None}).auto is None
    with pytest.raises(ConfigError, match=r"engine.auto: 'latenzy'; did you mean 'latency'\? allowed: latency, memory"):
        variant("onnx", "fp32", engine={"auto": "latenzy"})
    with pytest.raises(ConfigError, match="engine: 'fast' must be a mapping of settings"):
        variant("onnx", "fp32", engine="fast")


def test_the_reference_cannot_be_tuned(project):
    from edgewise.config.compose import compose

    text = (project / "params.yaml").read_text().replace("onnx-fp32: {", "onnx-fp32: {engine: auto, ", 1)
    (project / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"variants\.onnx-fp32\.engine\.auto: 'latency', but this is the reference"):
        compose(project / "params.yaml", project / "conf")


@pytest.mark.framework
def test_a_real_runtime():
    make_data()
    chosen = replace(make_variant("onnx-fp32-auto", {}, "edgewise.formats.onnx"), auto=Auto(), engine={"graph_optimization": "all"})
    write_onnx(Path("models/variants/onnx-fp32-auto"))
    configure({"fake-a": make_variant("fake-a", {}), "onnx-fp32-auto": chosen}, CLAIMING)
    probe_device.main()
    sys.argv = ["bench", "onnx-fp32-auto"]
    bench_on_device.main()
    found = json.loads(Path("metrics/bench/onnx-fp32-auto.json").read_text())["engine_auto"]
    assert [point["settings"] for point in found["points"][1:]] == list(schema.part(chosen.module, "run").GRID)
    assert all(point["refusal"] is None and point["sqnr_db"] > 60 for point in found["points"])
    assert found["settings"] == {"threads": 1, "graph_optimization": "all", **found["kept"]}


POINTS = [
    {"settings": {}, "ratio": None, "ratio_ci95": None, "refusal": None, "sqnr_db": 200.0, "verdict": "plain"},
    {"settings": {"arena": False}, "ratio": 0.9, "ratio_ci95": [0.88, 0.92], "refusal": None, "sqnr_db": 200.0, "verdict": "kept"},
    {"settings": {"x": "bf16"}, "ratio": None, "ratio_ci95": None, "refusal": "SQNR 45 dB | too low", "verdict": "refused"},
]
FOUND = {"goal": "latency", "kept": {"arena": False}, "settings": {"threads": 1, "arena": False}, "reason": "kept arena=false: 0.9"}


def test_the_table_goes_into_the_report_the_page_mlflow_and_the_settings_into_the_bundle(tmp_path):
    settings = fabricate(tmp_path)
    add("onnx-int8-static", engine_auto={**FOUND, "points": POINTS})
    summary = write_report()
    text, page = Path("metrics/report.md").read_text(), (tmp_path / PAGE).read_text()
    assert "- Engine of onnx-int8-static (auto, by latency): kept arena=false: 0.9" in text
    assert "| arena=false | 0.900 [0.880, 0.920] | 200 | kept |" in text
    assert "| x=bf16 |  |  | refused: SQNR 45 dB / too low |" in text
    assert "<td>0.900 [0.880, 0.920]</td>" in page and Structure(page).open == []
    assert all("onnx-int8-static (auto" not in line or "kept" in line for line in table.explain_table(summary))
    kept = run_set.make_record("onnx-int8-static", settings, summary, {})
    assert kept.params["engine_chosen.arena"] == "false" and kept.tags["engine_auto"] == "kept arena=false: 0.9"
    chosen = contents.Chosen.read(settings, summary, "onnx-int8-static", Path("models"))
    assert chosen.variant.engine["arena"] is False


def test_a_registered_model_is_known_by_the_settings_that_were_kept():
    chosen, made = variant("onnx", "fp32", engine="auto"), Manifest("variant")
    assert chosen.with_engine({}) is chosen
    keys = {registry.version_key(made, one) for one in (chosen, chosen.with_engine(FOUND["kept"]), chosen.with_engine({}))}
    assert len(keys) == 2 and chosen.with_engine(FOUND["kept"]).engine == {**chosen.engine, "arena": False}
