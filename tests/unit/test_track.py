"""track against a real MLflow store: what is written, and that nothing is written twice."""

import json
import shutil
import sqlite3
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml

from edgewise.artifacts import records
from edgewise.config import schema
from edgewise.config.schema import Budget, to_plain
from edgewise.errors import EdgewiseError, InfrastructureError
from edgewise.report import figure
from edgewise.track import receipt, registry, run_set, sweep_runs, tracking, view, writer
from stages import track
from tests.support.fabricate import FIVE, bench_result, fabricate, make_variant, write_report

pytestmark = pytest.mark.framework


@pytest.fixture
def project(tmp_path, monkeypatch, empty_database):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["track"])
    monkeypatch.setattr(registry, "register", lambda *_: None)  # what was fabricated is no model; see test_registry
    monkeypatch.setattr(figure, "draw_figure", lambda _, folder: (folder / "accuracy-latency.png").write_bytes(b"drawn elsewhere"))
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    make(tmp_path)
    return tmp_path


def make(root, rows=FIVE, **options) -> None:
    fabricate(root, rows, **options)
    write_report(figure=True)


def runs(root) -> dict[str, list]:
    """All runs of the one experiment, by variant, oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("resnet18-digits")
    found: dict[str, list] = {}
    for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]):
        found.setdefault(run.info.run_name, []).append(run)
    return found


def test_a_run_holds_everything_that_the_files_say(project):
    track.main()
    found = runs(project)
    assert {name: len(each) for name, each in found.items()} == {row.name: 1 for row in FIVE}
    run = found["onnx-int8-static"][0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.note.content"].startswith("3.23 times as fast as onnx-fp32 (faster within this visit), 11.4 MB, accuracy")
    assert run.data.metrics["latency_p50_ms"] == pytest.approx(0.992)
    assert run.data.metrics["accuracy_delta"] == pytest.approx(-2 / 540)
    assert run.data.metrics["latency_ratio_ci95_high"] == pytest.approx(0.31 * 1.012)
    assert run.data.metrics["weights_bytes_int8"] == 11_360_000
    assert run.data.params["variant.calibration.samples"] == "128" and run.data.params["train.optimizer"] == "adamw"
    assert not any(name.startswith("variants.") or name.startswith("budget") for name in run.data.params)
    tags = run.data.tags
    assert tags["current"] == "true" and tags["device.fingerprint"] and len(tags["sha256.model.onnx"]) == 64 and tags["lock.quantize"]
    assert tags["pareto"] == "true" and tags["chosen"] == "false"
    assert [*run.data.metrics][:4] == ["accuracy_top1", "latency_ratio_to_reference", "size_bytes", "peak_rss_bytes"]
    assert [tag for tag in tags if not tag.startswith("mlflow.")][:4] == ["status", "latency_verdict", "accuracy_verdict", "chosen"]
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "digits" and used.dataset.digest == "5f" * 6
    artifacts = project / "mlartifacts" / run.info.run_id / "artifacts"
    assert (artifacts / "report/accuracy-latency.png").exists() and (artifacts / "metrics/bench/onnx-int8-static.json").exists()
    failed = found["openvino-int8-static"][0]
    assert failed.info.status == "FAILED" and "covers 0 %" in failed.data.tags["reason"] and "latency_p50_ms" not in failed.data.metrics


def test_the_view_of_the_table_shows_what_the_runs_have(project, capsys):
    from mlflow import MlflowClient

    track.main()
    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("resnet18-digits")
    shown = view.decode_view(experiment.tags[view.name_tag(view.NAME)])
    run = runs(project)["onnx-int8-static"][0]
    names = {f"metrics.`{name}`" for name in run.data.metrics} | {f"tags.`{name}`" for name in run.data.tags}
    assert set(shown["selectedColumns"]) <= names and shown["orderByKey"] in names
    assert len(client.search_runs([experiment.experiment_id], shown["searchFilter"])) == len(FIVE)
    said = capsys.readouterr().out
    assert f"mlflow ui --backend-store-uri sqlite:///{project / 'mlflow.db'}" in said
    assert f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=edgewise" in said


def write_sweep(root, methods=("minmax", "entropy"), unranked=()) -> None:
    points, rows = [], []
    for number, method in enumerate(methods):
        result = {"accuracy_top1": 0.9, "latency_ratio_to_reference": 0.5 + number}
        points.append({"name": f"p{number}", "apply": None, "device": "local", "experiment": "tiles", "revision": f"{number}"})
        points[-1]["overrides"] = [f"++variants.a.calibration.method={method}"]
        rows.append(
            {"point": f"p{number}", "variant": "a", "status": "ok", "reason": None, "front": True, "values": [0.9], "result": result}
        )
    sweep = {"name": "method", "experiment": "tiles", "tree": "1f", "arguments": [], "keys": ["variants.a.calibration.method"], "data": {}}
    sweep |= {"objectives": {"accuracy_top1": "maximize", "latency_ratio_to_reference": "minimize"}, "points": points, "rows": rows}
    sweep |= {"warnings": ["profile smoke is too short"], "unranked": list(unranked)}
    (root / "metrics/sweeps").mkdir(parents=True)
    (root / "metrics/sweeps/method.json").write_text(json.dumps({"schema": 2, **sweep}))


def test_a_sweep_says_the_link_to_the_table_of_its_points(project, monkeypatch, capsys):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("LOGNAME", "alice")
    write_sweep(project)
    store = f"sqlite:///{project / 'team.db'}"
    (project / "params.yaml").write_text(f"tracking_uri: {store}\n")
    tracking.track_sweep("method")
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("tiles")
    assert (
        capsys.readouterr()
        .out.rstrip()
        .endswith(f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=edgewise-method")
    )
    shown = view.decode_view(experiment.tags[view.name_tag("edgewise-method")])
    found = client.search_runs([experiment.experiment_id], shown["searchFilter"], order_by=[f"{shown['orderByKey']} ASC"])
    assert [run.data.tags["point"] for run in found] == ["p0", "p1"] and shown["orderByAsc"], "the points without the sweep's own run"
    names = {f"{kind}.`{name}`" for kind in ("params", "metrics", "tags") for name in getattr(found[0].data, kind)}
    assert set(shown["selectedColumns"]) <= names and "params.`variants.a.calibration.method`" in shown["selectedColumns"]
    assert {run.data.tags["mlflow.user"] for run in found} == {"alice"}, "a team's server says whose a run is"
    parent = client.get_run(found[0].data.tags["mlflow.parentRunId"])
    assert parent.data.tags["mlflow.note.content"].startswith("2 points over `variants.a.calibration.method`; 2 on the Pareto front.")
    assert "profile smoke is too short" in parent.data.tags["mlflow.note.content"]


def test_the_table_of_a_sweep_is_not_ordered_by_a_latency_that_ranks_nothing(project):
    write_sweep(project, unranked=("latency_ratio_to_reference",))
    shown = sweep_runs.make_sweep_runs("method").view
    assert (shown["orderByKey"], shown["orderByAsc"]) == ("metrics.`accuracy_top1`", False)


def test_a_server_is_named_by_its_link_alone(monkeypatch):
    assert tracking.describe_ui("http://127.0.0.1:5000") == "" and tracking.describe_ui("sqlite:////a/mlflow.db").endswith("`, ")


def test_a_run_lasts_as_long_as_its_visit(project):
    path = project / "metrics/bench/onnx-int8-static.json"
    visit = {
        "key": "k",
        "at": "2026-01-02T03:04:05.500+00:00",
        "variant": "onnx-int8-static",
        "reference": "onnx-fp32",
        "interleave": "blocks",
    }
    visit |= {"ratio": 0.31, "log_standard_error": 0.01, "degrees": 5, "seconds": 41.25}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"visit": visit}))
    write_report(figure=True)
    track.main()
    info = runs(project)["onnx-int8-static"][0].info
    assert (info.end_time - info.start_time, info.end_time) == (41_250, 1_767_323_045_500)


def test_a_copy_that_dvc_deletes_writes_to_the_projects_store(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = tmp_path / "camera/.dvc/tmp/exps/tmp1a2b"
    copy.mkdir(parents=True)
    for folder, root in ((copy, tmp_path / "camera"), (tmp_path / "camera", tmp_path / "camera"), (tmp_path, tmp_path)):
        monkeypatch.chdir(folder)
        assert tracking.store_location(None) == (f"sqlite:///{root / 'mlflow.db'}", root / "mlartifacts")


def test_runs_go_where_params_yaml_says_and_the_environment_goes_before(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.store_location("http://tracking:5000") == ("http://tracking:5000", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    assert tracking.store_location("http://tracking:5000") == ("http://other:5000", None)


def test_the_store_of_params_yaml_gets_the_runs(project, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = f"sqlite:///{project / 'team.db'}"
    path = project / "models/config.yaml"
    path.write_text(path.read_text().replace("tracking_uri: null", f"tracking_uri: {store}"))
    track.main()
    assert (project / "team.db").is_file()
    assert store in capsys.readouterr().out


def test_the_models_of_the_runs_can_be_ranked(project):
    from mlflow import MlflowClient

    track.main()
    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    where = [client.get_experiment_by_name("resnet18-digits").experiment_id]
    found = client.search_logged_models(where, order_by=[{"field_name": "metrics.latency_ratio_to_reference", "ascending": True}])
    assert {model.name for model in found} == {row.name for row in FIVE}
    assert found[0].name == "onnx-int8-static" and {metric.dataset_name for metric in found[0].metrics} == {"digits"}
    assert {model.name: model.status for model in found}["openvino-int8-static"] == "FAILED"


def test_the_second_time_does_not_even_ask_the_store(project, monkeypatch, capsys):
    track.main()
    monkeypatch.setattr(writer, "write_run_set", lambda *_: pytest.fail("the receipt was not believed"))
    track.main()
    assert "nothing new, 5 runs" in capsys.readouterr().out


def test_without_a_receipt_nothing_is_added(project):
    track.main()
    before = runs(project)
    receipt.PATH.unlink()
    track.main()
    after = runs(project)
    assert {n: [r.info.run_id for r in each] for n, each in after.items()} == {
        n: [r.info.run_id for r in each] for n, each in before.items()
    }


def test_deleting_the_database_and_running_again_brings_everything_back(project, empty_database):
    track.main()
    before = runs(project)
    shutil.copy(empty_database, project / "mlflow.db")
    shutil.rmtree(project / "mlartifacts")
    track.main()
    after = runs(project)
    assert {n: r[0].data.metrics for n, r in after.items()} == {n: r[0].data.metrics for n, r in before.items()}
    assert {n: r[0].data.tags["edgewise.key"] for n, r in after.items()} == {n: r[0].data.tags["edgewise.key"] for n, r in before.items()}


def test_a_new_measurement_is_a_new_run_and_the_old_content_gets_its_run_back(project):
    track.main()
    rows = [replace(row, ratio=0.29) if row.name == "onnx-int8-static" else row for row in FIVE]
    make(project, rows)
    track.main()
    found = runs(project)
    assert {name: len(each) for name, each in found.items() if len(each) > 1} == {"onnx-int8-static": 2}
    assert [run.data.tags["current"] for run in found["onnx-int8-static"]] == ["false", "true"]
    make(project, FIVE)
    track.main()
    found = runs(project)
    assert [run.data.tags["current"] for run in found["onnx-int8-static"]] == ["true", "false"]


def test_a_removed_variant_is_not_current(project):
    track.main()
    make(project, FIVE[:4])
    track.main()
    found = runs(project)
    assert found["openvino-int8-static"][0].data.tags["current"] == "false"
    assert found["onnx-fp32"][0].data.tags["current"] == "true"


def test_another_budget_moves_the_mark_and_adds_no_run(project):
    track.main()
    make(project, budget=Budget("small", size_bytes=12_000_000))
    track.main()
    found = runs(project)
    assert all(len(each) == 1 for each in found.values())
    assert [name for name, (run,) in found.items() if run.data.tags["chosen"] == "true"] == ["onnx-int8-static"]


def test_a_run_that_was_left_half_written_is_completed(project, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "log_run", killed)
        with pytest.raises(KeyboardInterrupt):
            track.main()
    track.main()
    found = runs(project)
    assert all(len(each) == 1 for each in found.values())
    assert found["onnx-fp32"][0].data.metrics["size_bytes"] == 44_900_000


def test_what_two_writers_wrote_at_once_is_there_once_in_the_end(project):
    from mlflow import MlflowClient

    track.main()
    client, before = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}"), runs(project)["onnx-fp32"][0]
    twin = client.create_run(before.info.experiment_id, tags={"edgewise.key": before.data.tags["edgewise.key"]}, run_name="onnx-fp32")
    client.set_terminated(twin.info.run_id)
    receipt.PATH.unlink()
    track.main()
    assert [run.info.run_id for run in runs(project)["onnx-fp32"]] == [before.info.run_id]


@pytest.mark.parametrize("ours", [False, True])
def test_a_writer_that_another_came_between_leaves_one_whole_run(project, monkeypatch, ours):
    """Both insert the same row, the other ends first: his own run, and this one is withdrawn; or this very run, which stays."""
    from mlflow.exceptions import BAD_REQUEST, MlflowException

    fill, met = writer.log_run, []

    def meet(client, run, record, book):
        if not met:
            met.append(run)
            twin = client.create_run(client.get_run(run).info.experiment_id, tags={"edgewise.key": record.key}, run_name=record.variant)
            if ours:
                client.delete_run(twin.info.run_id)
            writer.finish_run(client, run if ours else twin.info.run_id, record, book)
            raise MlflowException("duplicate key value violates unique constraint", error_code=BAD_REQUEST)
        fill(client, run, record, book)

    monkeypatch.setattr(writer, "log_run", meet)
    track.main()
    found = runs(project)
    assert {name: [run.info.status for run in each] for name, each in found.items()} == {
        row.name: ["FAILED" if row.fails_in else "FINISHED"] for row in FIVE
    }
    assert (met[0] in {run.info.run_id for (run,) in found.values()}) == ours


def test_an_experiment_that_was_deleted_in_the_ui_is_restored(project):
    from mlflow import MlflowClient

    track.main()
    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    client.delete_experiment(client.get_experiment_by_name("resnet18-digits").experiment_id)
    track.main()
    assert {name: len(each) for name, each in runs(project).items()} == {row.name: 1 for row in FIVE}


def test_a_server_that_is_down_is_one_error_and_the_next_run_catches_up(project, monkeypatch):
    slept_s: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", slept_s.append)
        patch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
        with pytest.raises(InfrastructureError) as error:
            track.main()
    assert sum(slept_s) < 5, "between its attempts; MLflow's own default waits for minutes"
    assert "http://127.0.0.1:9 cannot be used" in str(error.value) and "no measurement is lost" in str(error.value)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    assert not receipt.PATH.exists()
    track.main()
    assert len(runs(project)) == len(FIVE)


def test_a_damaged_database_is_one_clear_error(project):
    (project / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InfrastructureError, match="cannot be used"):
        track.main()


def test_a_summary_without_a_configured_variant_is_not_tracked(project):
    fabricate(project, FIVE)
    settings = schema.read()
    variants = {**settings.variants, "onnx-new": replace(settings.variants["onnx-fp32"], name="onnx-new")}
    schema.PATH.write_text(yaml.safe_dump(to_plain(replace(settings, variants=variants))))
    with pytest.raises(EdgewiseError, match="lacks onnx-new: run `dvc repro report`"):
        track.main()


def test_the_key_is_of_the_content_and_not_of_what_only_judges_it(project):
    def keys():
        return {r.variant: r.key for r in run_set.make_pipeline_runs(schema.read(), records.read_summary()).records}

    before = keys()
    make(project, budget=Budget("small", size_bytes=12_000_000))
    assert keys() == before
    make_variant(project, replace(FIVE[3], gained=7))
    write_report(figure=True)
    assert {name for name in before if keys()[name] != before[name]} == {"tflite-int4-weight"}


def test_runs_on_random_inputs_say_so(project):
    path = project / "metrics/data.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "declared": "random"}))
    for record in run_set.make_pipeline_runs(schema.read(), records.read_summary()).records:
        assert record.tags["data.declared"] == "random"
        assert record.tags["mlflow.note.content"].startswith("random inputs: for a first look at speed and size only")


def test_the_receipt_needs_the_runs_in_the_database(tmp_path):
    database = tmp_path / "with space.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE runs (run_uuid TEXT, lifecycle_stage TEXT, artifact_uri TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?, ?, ?)", [("a", "active", str(tmp_path)), ("b", "deleted", str(tmp_path))])
    uri = f"sqlite:///{database}"
    assert receipt.is_up_to_date(receipt.Receipt(uri, "s", {"v": "a"}), uri, "s")
    assert not receipt.is_up_to_date(receipt.Receipt(uri, "s", {"v": "a"}), uri, "other state")
    assert not receipt.is_up_to_date(receipt.Receipt(uri, "s", {"v": "a"}), uri + "x", "s")
    assert not receipt.is_up_to_date(receipt.Receipt(uri, "s", {"v": "b"}), uri, "s")
    database.unlink()
    assert not receipt.is_up_to_date(receipt.Receipt(uri, "s", {"v": "a"}), uri, "s")


@pytest.mark.parametrize(("answer", "held"), [(200, True), (404, False), (401, False), (503, True), (None, True)])
def test_the_receipt_asks_a_server_whether_it_still_has_the_run(answer, held, monkeypatch):
    monkeypatch.setattr(receipt, "ANSWER_S", 120.0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path.endswith("/api/2.0/mlflow/runs/get?run_id=a")
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    uri = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if answer is None:  # down: there is nothing to write, so nothing is wrong
        server.shutdown()
        server.server_close()
    assert receipt.is_up_to_date(receipt.Receipt(uri, "s", {"v": "a"}), uri, "s") is held
    if answer:
        server.shutdown()
        server.server_close()


def test_numbers_keep_their_units_and_intervals_have_two_ends():
    row = {
        "latency_p50_ms": 1.5,
        "latency_p50_ci95_ms": [1.0, 2.0],
        "weights_bytes_by_dtype": {"int8": 3},
        "fits": {"64": {"p50_ms": 2.5}},
        "ok": True,
        "kept_float": ["a"],
    }
    assert dict(run_set.metric_values(row)) == {
        "latency_p50_ms": 1.5,
        "latency_p50_ci95_ms_low": 1.0,
        "latency_p50_ci95_ms_high": 2.0,
        "weights_bytes_int8": 3.0,
        "fits_64_p50_ms": 2.5,
    }
    assert bench_result(FIVE[0])["latency"]["p99_ms"] is None
