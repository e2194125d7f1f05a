"""The pipeline on an emulated arm64 board: what the arm64 builds of the runtimes compute, and that nothing else is said of it."""

import copy
import json

import pytest

from edgewise.devices import emulated
from tests.conftest import ROOT
from tests.support.workspace import TINY, Workspace

pytestmark = pytest.mark.system
SYSROOT = ROOT / ".arm64"
VARIANTS = {
    "onnx-fp32": {"format": "onnx", "scheme": "fp32"},
    # 7 bits: with 8 an x86 without VNNI saturates, and it is this machine that computes something else
    "onnx-int8-static": {"format": "onnx", "scheme": "int8-static", "calibration": {"samples": 16}, "reduce_range": True},
    "tflite-int8-static": {"format": "tflite", "scheme": "int8-static", "calibration": {"samples": 16}},
    "ncnn-fp32": {"format": "ncnn", "scheme": "fp32"},
    "ncnn-int8-static": {"format": "ncnn", "scheme": "int8-static", "calibration": {"samples": 16}},
    "mnn-fp32": {"format": "mnn", "scheme": "fp32"},
    "mnn-int8-static": {"format": "mnn", "scheme": "int8-static", "calibration": {"samples": 16}},
    "torch-fp32": {"format": "torch", "scheme": "fp32"},
}
LEAST_DB = {"onnx-fp32": 100, "onnx-int8-static": 20, "ncnn-fp32": 100, "ncnn-int8-static": 20, "mnn-fp32": 100, "mnn-int8-static": 20}
TIMED = ("latency.p50_ms", "latency.ratio_to_reference", "latency.verdict", "latency.load_ms", "memory", "noise")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    if not (SYSROOT / emulated.READY).is_file():
        pytest.skip("no emulated arm64 board in .arm64/: `make arm64` makes it")
    params = copy.deepcopy(TINY)
    params["device"] = {"name": "arm64_emulated", "threads": 1, "sysroot": str(SYSROOT)}
    params["variants"] = VARIANTS
    made = Workspace(tmp_path_factory.mktemp("arm64"), params)
    made.repro()
    return made


@pytest.fixture(scope="module")
def rows(workspace):
    return json.loads((workspace.folder / "metrics/summary.json").read_text())["variants"]


def test_the_board_is_an_arm_one(workspace):
    device = json.loads((workspace.folder / "metrics/device.json").read_text())
    assert device["facts"]["machine"] == "aarch64" and device["facts"]["emulated"] and "asimddp" in device["facts"]["isa"]


def test_static_int8_of_tflite_is_the_same_bit_by_bit(rows):
    assert rows["tflite-int8-static"]["agreement"] | {"least_sqnr_db": 10.0} == {
        **{"samples": 4, "verdict": "identical", "same_predictions_share": 1.0},
        **{"sqnr_db": 200.0, "least_sqnr_db": 10.0, "largest_difference": 0.0},
    }


@pytest.mark.parametrize("name", LEAST_DB)
def test_the_same_is_computed_there(rows, name):
    assert rows[name]["status"] == "ok" and rows[name]["agreement"]["sqnr_db"] >= LEAST_DB[name], rows[name]["agreement"]


def test_what_has_no_arm64_build_there_is_said(rows):
    assert rows["torch-fp32"]["status"] == "failed" and "needs a runtime that is not in" in rows["torch-fp32"]["reason"]
    assert "onnxruntime-" in rows["torch-fp32"]["reason"]


def test_nothing_is_timed(workspace, rows):
    for name, row in rows.items():
        known = {**row, **{f"latency.{key}": value for key, value in row["latency"].items()}}
        assert not [key for key in TIMED if known[key] not in (None, "reference")], name
        record = json.loads((workspace.folder / f"metrics/bench/{name}.json").read_text())
        assert record["status"] == "failed" or record["conditions"]["emulated"] is True
    report = (workspace.folder / "metrics/report.md").read_text()
    assert "emulated: outputs compared, nothing timed" in report and "identical for" in report
