"""The bundle in an environment of its own, made from its own requirements.txt: the answers of the evaluation on every test picture.

In this Python, and in 3.9, the oldest that a device may have; there the variants are measured too, with the last runtimes made for it.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.workspace import TINY, Workspace
from tests.system.bundles import check_answers, infer, make_environment, write_pictures

pytestmark = pytest.mark.system
OLDEST = "3.9"
LAST = ("ai-edge-litert==2.1.*", "onnxruntime==1.19.*")  # that have wheels for it


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    variants = {name: TINY["variants"][name] for name in ("onnx-fp32", "onnx-int8-static")}
    variants["tflite-int8-static"] = {"format": "tflite", "scheme": "int8-static", "calibration": {"samples": 16}}
    chosen = {"budget": {"name": "none", "size_bytes": 40_000, "prefer": "latency"}, "train": {"name": "default", "epochs": 8}}
    made = Workspace(tmp_path_factory.mktemp("workspace"), {**TINY, **chosen, "variants": variants})
    made.repro("bundle")
    return made


@pytest.fixture(scope="module")
def pictures(workspace, tmp_path_factory) -> Path:
    return write_pictures(workspace.folder / "models/data/splits.json", tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module", params=[f"{sys.version_info[0]}.{sys.version_info[1]}", OLDEST])
def python(request, workspace, tmp_path_factory) -> str:
    return make_environment(request.param, workspace.folder / "models/bundle/requirements.txt", tmp_path_factory.mktemp("environment"))


def test_every_test_picture_gets_the_answer_of_the_evaluation(workspace, pictures, python):
    models = workspace.folder / "models"
    chosen = json.loads((workspace.folder / "metrics/summary.json").read_text())["chosen"]
    check_answers(python, models / "bundle", models / "evaluate" / chosen, pictures)


@pytest.mark.parametrize("python", [OLDEST], indirect=True)
def test_the_variants_are_measured_on_the_oldest_python(workspace, python, sshd):
    subprocess.run([python, "-m", "pip", "install", "-q", *LAST], check=True, timeout=300)
    device = {"name": "ssh", "threads": 1, **sshd.device(python=python)}
    before = workspace.edit("params.yaml", lambda text: yaml.safe_dump({**yaml.safe_load(text), "device": device}))
    ran = workspace.repro("report")
    workspace.edit("params.yaml", lambda _: before)
    assert {name for name in ran if name.startswith("quantize")} == set()
    facts = json.loads((workspace.folder / "metrics/device.json").read_text())["facts"]
    assert facts["python"].startswith(f"{OLDEST}.")
    packages = json.loads((workspace.folder / "metrics/runtimes.json").read_text())["packages"]
    assert packages["onnxruntime"].startswith("1.19.") and packages["ai-edge-litert"].startswith("2.1.")
    for name, row in json.loads((workspace.folder / "metrics/summary.json").read_text())["variants"].items():
        assert row["status"] == "ok" and row["latency"]["p50_ms"] > 0 and row["memory"]["peak_rss_bytes"] > 0, (name, row)
        assert row["agreement"]["same_predictions_share"] == 1, (name, row["agreement"])
        assert row["conditions"]["interleave"] == "blocks", "two models took turns there"


def test_a_runtime_that_is_not_installed_is_one_clear_line(workspace, python):
    bundle = workspace.folder / "models/bundle"
    needed = re.findall(r"^[\w-]+", (bundle / "requirements.txt").read_text(), re.M)
    (runtime,) = {name.lower() for name in needed} - {"numpy", "pillow"}
    assert infer(python, bundle, "--check").returncode == 0
    done = subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", runtime], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = infer(python, bundle, "--check")
    assert found.returncode == 2 and found.stderr.startswith(f"error: {runtime} is not installed: this bundle needs {runtime} >= ")
    assert f"{python} -m pip install '{runtime}>=" in found.stderr and found.stderr.count("\n") == 1
