"""Sweeps by running them, on a pipeline whose results are formulas: jobs, experiments, failures, MLflow, going on after a stop."""

import json
import os
import signal
import subprocess
import time

import pytest
import yaml

from tests.support import toy_pipeline
from tests.support.toy_pipeline import VARIANT

pytestmark = [pytest.mark.framework, pytest.mark.pipeline]

SAMPLES = f"variants.{VARIANT}.calibration.samples"
STOPPED = ("--name", "stopped", f"{SAMPLES}=20,600")
GRID = ("--name", "grid", f"{SAMPLES}=10,13,20")


class Project:
    def __init__(self, folder):
        self.workspace = toy_pipeline.make(folder)
        self.folder = folder

    def sweep(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.workspace.run(
            "env", f"TOY_LOG={self.folder}/.edgewise/toy.log", "python", "-m", "edgewise.cli.main", "sweep", *arguments
        )

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.workspace.run("env", f"TOY_LOG={self.folder}/.edgewise/toy.log", "dvc", *arguments)

    def git(self, *arguments: str) -> str:
        return self.workspace.run("git", *arguments).stdout.strip()

    @property
    def log(self) -> list[str]:
        path = self.folder / ".edgewise/toy.log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def refs(self) -> dict[str, str]:
        lines = self.git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/sweep-*").splitlines()
        return {line.rpartition("/")[2]: line for line in lines}

    def summary(self, name: str) -> dict:
        return json.loads((self.folder / f"metrics/sweeps/{name}.json").read_text())

    def mlflow(self):
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=f"sqlite:///{self.folder}/mlflow.db")

    def runs(self) -> list:
        client = self.mlflow()
        return client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = Project(tmp_path_factory.mktemp("sweep"))
    (made.folder / "README.md").write_text("edited, not committed\n")
    (made.folder / "notes.txt").write_text("not known to git\n")
    (made.folder / ".edgewise").mkdir()
    return made


@pytest.fixture(scope="module")
def grid(project) -> subprocess.CompletedProcess:
    """Three points in two processes, one of which fails."""
    project.before = project.git("status", "--porcelain"), (project.folder / "params.yaml").read_bytes()
    return project.sweep(*GRID, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def test_failures_are_told_at_the_end_and_stop_no_other_point(project, grid):
    assert grid.returncode == 1, grid.stdout + grid.stderr
    failed = [line for line in grid.stderr.splitlines() if line.startswith("failed:")]
    assert len(failed) == 1 and all("samples=13" in line and "the toy takes no 13 samples" in line and ".log" in line for line in failed)
    rows = project.summary("grid")["rows"]
    assert sorted(row["status"] for row in rows) == ["failed", "ok", "ok"]


def test_every_finished_point_is_one_experiment_whose_params_match_its_metrics(project, grid):
    rows = {row["point"]: row for row in project.summary("grid")["rows"] if row["status"] == "ok"}
    assert set(project.refs) == set(rows) and len(rows) == 2
    for point, ref in project.refs.items():
        params = yaml.safe_load(project.git("show", f"{ref}:params.yaml"))["variants"][VARIANT]
        found = json.loads(project.git("show", f"{ref}:metrics/summary.json"))["variants"][VARIANT]
        assert found["quality"]["score"] == pytest.approx(toy_pipeline.accuracy(params["calibration"]["samples"]))
        assert rows[point]["values"] == [found["quality"]["score"], 0.4, 1000]


def test_common_work_is_done_once(project, grid):
    assert project.log.count("train") == 1 and project.log.count("quantize onnx-fp32") == 1


def test_nothing_of_the_users_is_edited_and_what_is_not_committed_is_taken_along(project, grid):
    status, params = project.before
    new = set(project.git("status", "--porcelain").splitlines()) - set(status.splitlines())
    assert new == {"?? metrics/"} and (project.folder / "params.yaml").read_bytes() == params
    assert set(project.summary("grid")["carried"]) == {"README.md", "notes.txt"}
    assert project.git("show", f"{next(iter(project.refs.values()))}:notes.txt") == "not known to git"
    assert project.git("log", "--oneline").count("\n") == 1


def test_the_front_the_effects_and_the_promotions(project, grid):
    summary = project.summary("grid")
    assert [row["settings"] for row in summary["rows"] if row["front"]] == [{SAMPLES: "20"}]
    levels = summary["effects"]["accuracy_top1"][SAMPLES]["levels"]
    assert levels["20"]["effect"] == pytest.approx(0.025) and levels["10"]["effect"] == pytest.approx(-0.025)
    best = next(row["point"] for row in summary["rows"] if row["front"])
    assert f"dvc exp apply {best}" in grid.stdout
    assert (project.folder / "metrics/sweeps/grid.png").read_bytes()[:4] == b"\x89PNG"


def test_mlflow_has_the_sweep_and_its_rows_below_it(project, grid):
    runs = project.runs()
    (parent,) = [run for run in runs if run.info.run_name == "sweep grid"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 3 == len(runs) - 1
    assert parent.data.metrics == {"points": 3, "failed": 1, "front": 1}
    good = [run for run in children if run.info.status == "FINISHED"]
    assert len(good) == 2 and sum(run.data.tags["pareto"] == "true" for run in good) == 1
    assert all(run.data.params[SAMPLES] in ("10", "20") and run.data.metrics["latency_ratio_to_reference"] == 0.4 for run in good)


def test_the_front_is_in_the_registry_under_the_sweeps_own_aliases(project, grid):
    client = project.mlflow()
    (known,) = client.search_registered_models()
    assert known.name == "digits_network-digits"
    assert set(known.aliases) == {f"local-grid-{word}" for word in ("fastest", "smallest", "most-accurate")}
    (version,) = client.search_model_versions()
    run = client.get_run(version.run_id)
    assert version.tags["variant"] == VARIANT and run.data.tags["pareto"] == "true" and run.data.params[SAMPLES] == "20"


def test_the_same_command_restores_what_is_done_and_tries_the_rest_again(project, grid):
    before, refs = project.log, project.refs
    again = project.sweep(*GRID)
    assert again.returncode == 1 and again.stdout.count("  restored  ") == 2
    assert project.refs == refs and len(project.runs()) == 4
    assert project.log[len(before) :].count("report") == 0 and project.log.count("train") == 1


@pytest.mark.slow
def test_a_point_is_what_dvc_exp_run_makes_of_it(project, grid):
    best = next(row["point"] for row in project.summary("grid")["rows"] if row["front"])
    done = project.dvc("exp", "run", "--temp", "--name", "by-hand", "-S", f"{SAMPLES}=20")
    assert done.returncode == 0, done.stdout + done.stderr
    by_hand = project.git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/by-hand")
    for file in ("params.yaml", "metrics/summary.json"):
        assert project.git("show", f"{by_hand}:{file}") == project.git("show", f"{project.refs[best]}:{file}")


def test_a_promoted_point_runs_nothing_again(project, grid):
    best = next(row["point"] for row in project.summary("grid")["rows"] if row["front"])
    before = project.log
    assert project.dvc("exp", "apply", best).returncode == 0
    assert project.dvc("repro", "report").returncode == 0 and project.log == before
    project.git("checkout", "params.yaml")


def test_wrong_points_are_named_before_anything_runs(project, grid):
    refs, log = project.refs, project.log
    for arguments, said in {
        (
            f"{SAMPLES}=8,0",
        ): f"1 of 2 points have wrong settings, so nothing was run: {SAMPLES}=0: params.yaml: {SAMPLES}: 0 must be at least 1",
        ("bench.name=smoke,smok",): "did you mean 'smoke'?",
        ("nothing.here=1,2",): "Could not override 'nothing.here'",
        (f"{SAMPLES}=8", "hydra/launcher=nosuch"): "hydra/launcher/nosuch",
        (f"{SAMPLES}=[8",): "[8",
        ("--name", "a b", f"{SAMPLES}=8"): "--name 'a b'",
    }.items():
        done = project.sweep(*arguments)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert project.refs == refs and project.log == log


def start_and_wait_for_the_slow_point(project, log) -> subprocess.Popen:
    """A sweep of a point that is restored and one that waits, in the latter."""
    signals = ("env", "--default-signal=INT")  # a suite that was started in the background hands down an interrupt that is ignored
    command = (*signals, f"TOY_LOG={project.folder}/.edgewise/toy.log", "python", "-m", "edgewise.cli.main", "sweep", *STOPPED)
    waiting = project.log.count(f"quantize {VARIANT}") + 1
    process = project.workspace.start(*command, log=log)
    deadline = time.monotonic() + 120
    while project.log.count(f"quantize {VARIANT}") < waiting and time.monotonic() < deadline:
        time.sleep(0.1)
    return process


def left_running(project) -> str:
    return subprocess.run(["pgrep", "-f", f"{project.folder}/.edgewise/sweeps/stopped"], capture_output=True, text=True).stdout


def test_an_interrupt_stops_all_processes_and_keeps_what_is_finished(project, grid, tmp_path):
    process = start_and_wait_for_the_slow_point(project, tmp_path / "log")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(120) == 130, (tmp_path / "log").read_text()
    assert not left_running(project)
    assert "1 finished" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_after_kill_9_the_same_command_runs_the_rest_and_mlflow_has_each_once(project, grid, tmp_path):
    process = start_and_wait_for_the_slow_point(project, tmp_path / "log")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(120)
    deadline = time.monotonic() + 60
    while left_running(project) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left_running(project)
    refs = project.refs
    again = project.workspace.run(
        "env", "TOY_SLOW_S=0", f"TOY_LOG={project.folder}/.edgewise/toy.log", "python", "-m", "edgewise.cli.main", "sweep", *STOPPED
    )
    assert again.returncode == 0 and again.stdout.count("  restored  ") == 1, again.stdout + again.stderr
    assert len(project.refs) == len(refs) + 1 and set(refs) < set(project.refs)
    parents = [run for run in project.runs() if run.info.run_name == "sweep stopped"]
    children = [run for run in project.runs() if run.data.tags.get("mlflow.parentRunId") in {run.info.run_id for run in parents}]
    assert len(parents) == 1 and sorted(run.data.params[SAMPLES] for run in children) == ["20", "600"]


@pytest.mark.slow
def test_a_search_takes_the_points_that_another_sweep_has_done(project, grid):
    sweeper = ("hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.n_trials=4")
    objectives = ("hydra.sweeper.direction=[maximize,minimize,minimize]", "hydra.sweeper.max_failure_rate=1.0")
    before = project.log
    done = project.sweep("--name", "search", *sweeper, *objectives, f"{SAMPLES}=choice(10,20)")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  restored  ") == 4 and project.log == before
    assert {row["point"] for row in project.summary("search")["rows"]} <= set(project.refs)


@pytest.mark.slow
def test_a_sweep_runs_in_a_folder_whose_name_means_something_to_hydra_or_the_shell(tmp_path):
    folder = tmp_path / "it's (v2), 100% [new] $HOME a=b"
    folder.mkdir()
    made = Project(folder)
    done = made.sweep("--name", "one", f"{SAMPLES}=10,20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["status"] for row in made.summary("one")["rows"]] == ["ok", "ok"] and len(made.refs) == 2
