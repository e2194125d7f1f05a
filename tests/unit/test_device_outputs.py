"""What the device computes against what this machine computes: the verdict and its numbers, and devices that are not timed."""

# ruff: noqa: F401, F811 (a fixture of another test file)

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import records
from edgewise.artifacts.records import BenchResult
from edgewise.artifacts.samples import Samples
from edgewise.config import schema
from edgewise.config.schema import Budget, Plugin, to_plain
from edgewise.errors import ConfigError, DeviceError, VariantFailed
from edgewise.measure import device_outputs
from edgewise.report import choice, table, verdicts
from edgewise.report.rows import read_rows
from edgewise.tasks.classification import PRIMARY_METRIC
from tests.support import fake_device
from tests.support.fabricate import FINGERPRINT, fabricate, write_report
from tests.unit.test_bench_stage import BENCH, bench, make_data

pytestmark = pytest.mark.lengthy  # agents that run, and waits for them

SIX = replace(BENCH, agreement_samples=6)
EMULATOR = Plugin("emulator", "tests.support.fake_emulator", {"threads": 1, "cool_down_degc": None, "cool_down_max_s": 1.0})
BOTH = {"fake-a": {"sleep_ms": 1}, "fake-b": {"sleep_ms": 1}}


def device(outputs: str) -> Plugin:
    return Plugin("board", "tests.support.fake_device", to_plain(fake_device.Settings(outputs=outputs)))


def compared_samples() -> np.ndarray:
    """By hand: the test split has 17 of 20 samples, of which six are taken evenly."""
    return np.load("models/data/inputs/image.npy")[3:][[0, 3, 6, 10, 13, 16]]


def test_this_machine_computes_what_this_machine_computes(bench):
    record = bench(BOTH, "fake-b", settings=SIX)
    assert record["agreement"] == {
        **{"samples": 6, "verdict": "identical", "same_predictions_share": 1.0},
        **{"sqnr_db": 200.0, "least_sqnr_db": 0.0, "largest_difference": 0.0},
    }
    assert record["conditions"]["emulated"] is False and record["latency"]["p50_ms"] > 0
    assert isinstance(records.read(BenchResult, Path("metrics/bench/fake-b.json")), BenchResult)


def test_small_differences_are_reported_and_tolerated(bench):
    found = bench(BOTH, "fake-b", settings=SIX, device=device("1e-3"))["agreement"]
    logits = compared_samples()[:, :2].astype(np.float64)
    noise = np.stack([v * 1e-3 * np.random.default_rng(i).normal(size=(1, 2))[0] for i, v in enumerate(logits)])
    expected_db = 10 * np.log10(np.sum((logits - logits.mean(axis=0)) ** 2) / np.sum(noise**2))
    assert found["verdict"] == "within tolerance" and found["sqnr_db"] == pytest.approx(expected_db, abs=0.01)
    assert found["largest_difference"] == pytest.approx(np.abs(noise).max(), rel=1e-3)
    assert found["same_predictions_share"] == 1.0


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ("negated", r"fake-b computes something else on the device: SQNR -\d+\.\d dB .* fp32 needs at least 0 .* 0% of 6 answers the same"),
        ("cut", r"fake-b computes something else on the device: outputs logits \[6, 1\], on this machine logits \[6, 2\]"),
        ("nan", "NaN or infinite outputs for some of 6 test samples"),
    ],
)
def test_a_device_that_computes_something_else_fails_the_variant(bench, outputs, reason):
    record = bench(BOTH, "fake-b", settings=SIX, device=device(outputs))
    assert record["status"] == "failed" and "latency" not in record
    assert re.search(reason, record["reason"]), record["reason"]


def test_garbage_in_place_of_arrays_is_the_devices_fault(bench):
    with pytest.raises(DeviceError) as caught:
        bench(BOTH, "fake-b", settings=SIX, device=device("garbage"))
    assert caught.value.fault == "protocol" and not Path("metrics/bench/fake-b.json").exists()


@pytest.mark.parametrize(("db", "passes"), [(40.0, True), (80.0, False)])
def test_the_tolerance_is_the_schemes(db, passes):
    variant = schema.Variant("x-fp32", "x", "fp32", "x", min_device_sqnr_db=db)
    here = {"logits": np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)}
    there = {"logits": here["logits"] + np.float32(1e-3)}  # 60 dB below outputs of variance 1
    if passes:
        assert device_outputs.compare(here, there, variant).sqnr_db == pytest.approx(60, abs=0.5)
    else:
        with pytest.raises(VariantFailed, match="needs at least 80"):
            device_outputs.compare(here, there, variant)


def test_one_output_a_sample_has_no_answer_to_compare():
    here = {"value": np.arange(8, dtype=np.float32)[:, None]}
    found = device_outputs.compare(here, {"value": here["value"] * np.float32(1.001)}, schema.Variant("x-fp32", "x", "fp32", "x"))
    assert found.same_predictions_share is None and found.verdict == "within tolerance"


@pytest.mark.parametrize("shape", [(6, 0), (6, 0, 4)])
def test_an_output_of_no_length_is_equal(shape):
    nothing, values = np.zeros(shape, np.float32), np.arange(6, dtype=np.float32)
    found = device_outputs.compare({"a": nothing, "b": values}, {"a": nothing, "b": values}, schema.Variant("x-fp32", "x", "fp32", "x"))
    assert (found.verdict, found.largest_difference, found.same_predictions_share) == ("identical", 0.0, None)


def test_nothing_is_compared_where_nobody_asks(bench):
    assert bench(BOTH, "fake-b", settings=replace(BENCH, agreement_samples=0))["agreement"] is None


@pytest.mark.parametrize(("count", "needed", "allowed"), [(1, False, "0 .not compared. or at least 2"), (0, True, "at least 2, since")])
def test_too_few_samples_to_compare(tmp_path, monkeypatch, count, needed, allowed):
    monkeypatch.chdir(tmp_path)
    make_data()
    with pytest.raises(ConfigError, match=f"bench.agreement_samples: {count} must be {allowed}"):
        device_outputs.store_feeds(Samples.open(Path("models/data")), count, tmp_path, needed=needed)


def test_an_emulated_device_answers_and_is_not_timed(bench):
    record = bench(BOTH, "fake-b", settings=SIX, device=EMULATOR)
    assert record["status"] == "ok" and record["conditions"]["emulated"] is True and record["agreement"]["verdict"] == "identical"
    assert set(record["latency"].values()) == {None} and record["memory"] is record["noise"] is None, "no latency, no memory"
    probed = json.loads(Path("metrics/device.json").read_text())
    assert probed["facts"]["emulated"] is True and record["conditions"]["device_fingerprint"] == probed["fingerprint"]
    assert not Path("models/bench/fake-b/samples.json").exists()


@pytest.fixture
def emulated(tmp_path, monkeypatch):
    """A finished pipeline whose int8 variant was measured on an emulator, and all others on a board."""
    monkeypatch.chdir(tmp_path)
    settings = fabricate(tmp_path, budget=Budget("tight", latency_p50_ms=1000.0))
    found = records.Agreement(16, "within tolerance", 15 / 16, 38.1, 10.0, 0.09)
    conditions = records.Conditions("smoke", "model", 1, f"{FINGERPRINT}-emulated", emulated=True)
    record = BenchResult("onnx-int8-static", "onnx-fp32", conditions, agreement=found)
    records.write(Path("metrics/bench/onnx-int8-static.json"), record)
    return settings


def test_an_emulated_result_is_never_ranked_with_real_ones(emulated):
    rows = verdicts.add_verdicts(read_rows(emulated), emulated.reference, PRIMARY_METRIC)
    row = rows["onnx-int8-static"]
    assert (
        row.ok
        and row.conditions.emulated
        and row.latency.verdict is None
        and row.latency.missing_reason == "not measured: the device is emulated"
    )
    chosen = choice.choose(rows, emulated.budget, PRIMARY_METRIC, rows[emulated.reference].quality.score)
    assert chosen.chosen != "onnx-int8-static" and "onnx-int8-static" not in chosen.runners_up
    assert chosen.losers["onnx-int8-static"] == ("latency: cannot tell, not measured: the device is emulated",)


def test_the_report_says_so(emulated):
    summary = write_report()
    said, page = Path("metrics/report.md").read_text(), Path("models/report/report.html").read_text()
    line = "Outputs on local against this machine's: within tolerance (SQNR 38 dB, 94% of 16 answers the same) for onnx-int8-static."
    assert f"- {line}" in said and "(emulated: outputs compared, nothing timed)" in said
    assert "onnx-int8-static" in page and "SQNR 38 dB, 94% of 16 answers the same" in page
    cells = next(text for text in said.splitlines() if text.startswith("| onnx-int8-static")).split("|")
    assert cells[5].strip() == cells[6].strip() == "", "no latency, no ratio"
    assert table.format_ratio(summary.variants["onnx-int8-static"]) == ""
