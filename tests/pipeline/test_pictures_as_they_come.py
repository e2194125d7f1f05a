"""Pictures of many sizes through the whole pipeline at their own sizes, into a bundle that takes yet another one."""

import json
import sys

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.support.workspace import TINY, Workspace
from tests.unit.test_open_sizes import net
from tests.unit.test_ragged import make_pictures

pytestmark = [pytest.mark.framework, pytest.mark.slow]

NAMES = ("onnx-fp32", "onnx-int8-static", "openvino-fp32", "ncnn-fp32")
DATA = {"name": "image_folder", "path": "pictures", "targets": "none", "resize": "as_is", "pad_stride": 4, "image_size": [24, 48]}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    variants = {name: dict(zip(("format", "scheme"), name.split("-", 1), strict=True)) for name in NAMES}
    variants["onnx-int8-static"]["calibration"] = {"samples": 4}
    data = {**DATA, "splits": {"validation": 0.0, "calibration": 0.4, "test": 0.6}}
    model, bench = {"name": "onnx_file", "path": "mine.onnx"}, {**TINY["bench"], "agreement_samples": 4}
    budget = {"name": "none", "sqnr_db": 15.0, "prefer": "size"}
    params = {**TINY, "task": {"name": "none"}, "data": data, "model": model, "bench": bench, "budget": budget, "variants": variants}
    made = Workspace(tmp_path_factory.mktemp("clone"), params)
    make_pictures(made.folder / "pictures")
    onnx.save(net(), made.folder / "mine.onnx")
    made.repro()
    return made


def test_formats_that_can_take_every_size_and_the_other_one_says_why_not(workspace):
    rows = json.loads((workspace.folder / "metrics/summary.json").read_text())["variants"]
    assert {name: row["status"] for name, row in rows.items()} == {name: "failed" if name == "ncnn-fp32" else "ok" for name in NAMES}
    assert rows["ncnn-fp32"]["reason"].startswith("ncnn takes inputs of one size, and data.resize is as_is")
    assert rows["openvino-fp32"]["proof"]["sqnr_to_source_db"] > 100 and 20 < rows["onnx-int8-static"]["proof"]["sqnr_to_source_db"] < 100
    assert rows["onnx-int8-static"]["agreement"]["verdict"] == "identical" and rows["onnx-int8-static"]["agreement"]["samples"] == 4


def test_the_report_says_at_which_size_latency_was_measured(workspace):
    assert "latency and memory are those of one of 24x48 (data.image_size)" in (workspace.folder / "metrics/report.md").read_text()


def test_the_bundle_takes_a_picture_of_another_size(workspace):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (21, 35, 3), np.uint8)).save(workspace.folder / "other.png")
    done = workspace.run(sys.executable, "models/bundle/infer.py", "other.png")
    assert done.returncode == 0, done.stderr
    assert np.shape(json.loads(done.stdout)["values"]) == (1, 24, 36)
