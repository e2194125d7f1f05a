"""The task `none` through the whole pipeline, with a budget that only it can meet, into the bundle and MLflow."""

import json

import pytest

from tests.support.workspace import TINY, Workspace

pytestmark = [pytest.mark.framework, pytest.mark.slow]

NAMES = ("onnx-fp32", "onnx-int8-static")
BUDGET = {"name": "none", "size_bytes": 1_000_000, "sqnr_db": 15.0, "prefer": "size"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    variants = {name: TINY["variants"][name] for name in NAMES}
    made = Workspace(tmp_path_factory.mktemp("clone"), {**TINY, "task": {"name": "none"}, "budget": BUDGET, "variants": variants})
    made.repro()
    return made


def test_the_report_shows_the_agreement(workspace):
    summary = json.loads((workspace.folder / "metrics/summary.json").read_text())
    row = summary["variants"]["onnx-int8-static"]
    assert row["status"] == "ok" and row["quality"]["score"] is None and 15 < row["quality"]["sqnr_db"] < 100
    assert "| SQNR dB" in (workspace.folder / "metrics/report.md").read_text()
    page = (workspace.folder / "models/report/report.html").read_text()
    assert f"SQNR {row['quality']['sqnr_db']:.1f} dB to the reference" in page
    assert summary["chosen"] == "onnx-int8-static"


def test_the_bundle_answers_with_the_outputs(workspace):
    card = (workspace.folder / "models/bundle/card.md").read_text()
    assert "| SQNR to onnx-fp32, dB |" in card
    done = workspace.run("edgewise", "bundle", "--to", "device")
    assert done.returncode == 0 and '"9": ' in done.stdout, done.stdout + done.stderr


def test_mlflow_has_the_agreement(workspace):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace.folder / 'mlflow.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name != "Default"]
    runs = {run.info.run_name: run.data for run in client.search_runs([experiment.experiment_id])}
    assert runs["onnx-int8-static"].metrics["sqnr_db"] > 15 and runs["onnx-int8-static"].tags["chosen"] == "true"


def test_a_limit_that_nothing_meets_is_named_and_the_word_none_lifts_it(workspace):
    workspace.params(lambda tree: tree["budget"].update(sqnr_db=200.0, size_bytes=1000))
    workspace.repro("report")
    summary = json.loads((workspace.folder / "metrics/summary.json").read_text())
    assert summary["chosen"] is None and any("dB, limit 200 dB" in text for text in summary["losers"]["onnx-int8-static"])
    workspace.params(lambda tree: tree["budget"].update(sqnr_db="none", size_bytes=1_000_000))
    workspace.repro("report")
    assert json.loads((workspace.folder / "metrics/summary.json").read_text())["chosen"] == "onnx-int8-static"
