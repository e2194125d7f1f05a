"""The whole pipeline of three variants, measured over SSH."""

import copy
import json

import pytest
import yaml

from tests.support.workspace import ALWAYS, TINY, Workspace

pytestmark = pytest.mark.system
OWN = ("quantize", "evaluate", "bench-on-device")


def test_the_pipeline_measures_over_ssh(sshd, tmp_path):
    params = copy.deepcopy(TINY)
    params["device"] = {"name": "ssh", "threads": 1, **sshd.device()}
    (tmp_path / "workspace").mkdir()
    workspace = Workspace(tmp_path / "workspace", params)
    stages = yaml.safe_load((workspace.folder / "dvc.yaml").read_text())["stages"]
    assert len(workspace.repro()) == len(stages.keys() - ALWAYS - {*OWN}) + 3 * len(OWN)
    summary = json.loads((workspace.folder / "metrics/summary.json").read_text())
    assert set(summary["variants"]) == set(TINY["variants"])
    for name, variant in summary["variants"].items():
        assert variant["agreement"]["verdict"] == "identical" and variant["agreement"]["samples"] == 4, (name, variant)
        assert variant["status"] == "ok" and variant["latency"]["p50_ms"] > 0 and variant["memory"]["peak_rss_bytes"] > 0, (name, variant)
    raw = json.loads((workspace.folder / "models/bench/openvino-fp32/samples.json").read_text())
    assert raw["variant"][0][0]["modules"] != raw["reference"][0][0]["modules"]
    assert not workspace.repro(), "a second run measures nothing"
    probed = workspace.run("python", "-m", "stages.probe_device")
    assert probed.returncode == 0 and "onnxruntime" in probed.stdout
    assert sshd.nothing_runs()
