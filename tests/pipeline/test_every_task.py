"""Every task by DVC, from data to report, bundle and MLflow: a feature that never reached a report is not there.

Detection, segmentation and the rest need no file: the surface data knows its defects, and small nets learn from nothing. How well they
learn is not tested here.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.workspace import TINY, Workspace

pytestmark = [pytest.mark.framework, pytest.mark.slow]

FLOAT = {"onnx-fp32": {"format": "onnx", "scheme": "fp32"}, "openvino-fp32": {"format": "openvino", "scheme": "fp32"}}
SURFACE = {"name": "surface", "image_size": 64, "samples": 160}
WAVES = {"name": "arrays", "path": "own/values.npz", "targets": "values"}
TAGS = {"name": "arrays", "path": "own/tags.npz", "targets": "multi_label"}
WAVE_NET = {"name": "callable", "callable": "benchmarks.example_files.wave_net"}
CASES: dict[str, dict[str, Any]] = {
    "classification": {},
    "defect_detection": {
        "data": {**SURFACE, "channels": 3, "image_size": 16},
        "model": {"name": "callable", "callable": "tests.support.sources.digits_network"},
    },
    "detection": {
        "data": {**SURFACE, "targets": "boxes", "image_size": 128},
        "model": {"name": "tiny_detector"},
        "train": {"name": "detection", "epochs": 1},
    },
    "segmentation": {
        "data": {**SURFACE, "targets": "masks"},
        "model": {"name": "segformer_b0"},
        "train": {"name": "segmentation", "epochs": 1},
    },
    "multi_label": {"data": TAGS, "model": WAVE_NET, "train": {"name": "default", "epochs": 1, "shift_pixels": 0}},
    "regression": {"data": WAVES, "model": WAVE_NET, "train": {"name": "default", "epochs": 1, "shift_pixels": 0}},
    "embedding": {},
    "none": {},
}


def write_arrays(folder: Path) -> None:
    """Waves with two numbers, and with two tags, each."""
    import numpy as np

    rng = np.random.default_rng(0)
    phase, speed = rng.uniform(0, 3, (2, 200))
    waves = np.sin(np.linspace(0, 6, 32)[None] * speed[:, None] + phase[:, None])[:, None].astype(np.float32)
    folder.mkdir()
    np.savez(folder / "values.npz", x=waves, y=np.stack([phase, speed], 1).astype(np.float32))
    np.savez(folder / "tags.npz", x=waves, y=np.stack([phase > 1.5, speed > 1.5], 1).astype(np.int64))


def test_every_task_has_its_run():
    assert {path.stem for path in (ROOT / "conf/task").glob("*.yaml")} == CASES.keys()


@pytest.mark.parametrize("task", CASES)
def test_the_task_reaches_report_bundle_and_mlflow(task, tmp_path):
    limits = {"name": "none", "size_bytes": 100_000_000}
    clone = Workspace(tmp_path, {**TINY, "task": {"name": task}, "budget": limits, "variants": FLOAT, **CASES[task]})
    write_arrays(clone.folder / "own")
    clone.repro()
    summary = json.loads((clone.folder / "metrics/summary.json").read_text())
    assert {name: row["status"] for name, row in summary["variants"].items()} == dict.fromkeys(FLOAT, "ok"), [
        row["reason"] for row in summary["variants"].values()
    ]
    metric = summary["primary_metric"]
    for name, row in summary["variants"].items():
        assert (row["quality"]["score"] is not None) == (metric is not None), name
        assert row["latency"]["p50_ms"] > 0 and row["proof"]["sqnr_to_source_db"] > 60
    page = (clone.folder / "models/report/report.html").read_text()
    assert (metric["title"] if metric else "SQNR") in page
    answered = clone.run("edgewise", "bundle", "--to", "device")
    assert answered.returncode == 0, answered.stdout + answered.stderr
    assert read_metrics(clone)


def read_metrics(clone: Workspace) -> dict[str, float]:
    """The metrics of the reference's run in MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{clone.folder / 'mlflow.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name != "Default"]
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'onnx-fp32'")
    return run.data.metrics
