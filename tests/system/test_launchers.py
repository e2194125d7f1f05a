"""Sweeps on real launchers: a private Slurm, submitit's processes, Ray, joblib; and what they leave when a job is killed."""

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from tests.support import toy_pipeline
from tests.support.toy_pipeline import VARIANT
from tests.support.workspace import Workspace
from tests.system import slurm

pytestmark = pytest.mark.system
SAMPLES = f"variants.{VARIANT}.calibration.samples"
SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.mem_gb=1", "hydra.launcher.cpus_per_task=1")
BENCH_S = 1.5


class Toy:
    """One sweep of the project that all of these tests share: what is common to their points is done once."""

    def __init__(self, workspace: Workspace, name: str, **environment: str):
        self.workspace, self.folder, self.name = workspace, workspace.folder, name
        self.place = self.folder / ".edgewise/sweeps" / name
        self.log = self.folder / f".edgewise/{name}.log"
        self.added = [f"{key}={value}" for key, value in {"TOY_LOG": self.log, "MLFLOW_TRACKING_URI": self.store, **environment}.items()]

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def sweep(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.workspace.run("env", *self.added, "python", "-m", "edgewise.cli.main", "sweep", "--name", self.name, *arguments)

    def start(self, *arguments: str) -> subprocess.Popen:
        command = ("env", *self.added, "python", "-m", "edgewise.cli.main", "sweep", "--name", self.name, *arguments)
        return self.workspace.start(*command, log=self.out)

    @property
    def out(self) -> Path:
        return self.folder / f".edgewise/{self.name}.out"

    def said(self) -> str:
        return self.out.read_text()

    def alone_with_the_slow_one(self) -> int:
        """Wait until one of two points is whole; the id of the process that runs the other one."""
        end, points = time.monotonic() + 120, self.place / "points"
        while not list(points.glob("*.json")) or not (worker := worker_of(self.place / "work")):
            assert time.monotonic() < end, self.said()
            time.sleep(0.2)
        return worker

    def rows(self) -> dict[str, dict]:
        rows = json.loads((self.folder / f"metrics/sweeps/{self.name}.json").read_text())["rows"]
        return {row["settings"].get(SAMPLES, "600"): row for row in rows}

    def refs(self) -> dict[str, tuple[str, float]]:
        """The samples and the accuracy of every experiment of this sweep, by its name."""
        run, found, own = self.workspace.run, {}, {row["point"] for row in self.rows().values()}
        every = run("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/sweep-*").stdout.split()
        for ref in (ref for ref in every if ref.rpartition("/")[2] in own):
            params = yaml.safe_load(run("git", "show", f"{ref}:params.yaml").stdout)["variants"][VARIANT]["calibration"]["samples"]
            metrics = json.loads(run("git", "show", f"{ref}:metrics/summary.json").stdout)["variants"][VARIANT]
            found[ref.rpartition("/")[2]] = (str(params), metrics["quality"]["score"])
        return found

    def benches(self) -> list[tuple[float, float]]:
        lines = [line.split() for line in self.log.read_text().splitlines() if line.startswith("bench ")]
        return sorted((float(start), float(end)) for _, start, end in lines)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Workspace:
    made = toy_pipeline.make(tmp_path_factory.mktemp("launchers"))
    (made.folder / ".edgewise").mkdir()
    return made


@pytest.fixture(scope="module")
def cluster():
    if absent := slurm.missing():
        pytest.skip(f"not installed: {', '.join(absent)}; tests/system/install.sh installs them as root")
    if os.getuid() != 0:
        pytest.skip("needs root: slurmd starts jobs as their users")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)  # munged refuses a socket that others could not reach
        with slurm.cluster(Path(folder)) as made:
            yield made


def test_slurm_runs_the_points_at_once_and_one_of_them_measures_at_a_time(cluster, project):
    toy = Toy(project, "cluster", TOY_BENCH_S=str(BENCH_S), **cluster.environment)
    done = toy.sweep(*SLURM, f"{SAMPLES}=10,20,30")
    assert done.returncode == 0, done.stdout + done.stderr
    assert dict(toy.refs().values()) == {str(n): pytest.approx(toy_pipeline.accuracy(n)) for n in (10, 20, 30)}
    benches = toy.benches()
    assert len(benches) == 3 and all(end <= start for (_, end), (start, _) in itertools.pairwise(benches))
    assert toy.log.read_text().count("train\n") == 1


@pytest.mark.parametrize(("how", "samples"), [("scancel", 21), ("kill -9", 22)])
def test_a_job_that_slurm_ends_is_a_failed_point_with_a_name_and_the_others_stay(how, samples, cluster, project):
    toy = Toy(project, f"slurm{samples}", **cluster.environment)
    process = toy.start(*SLURM, f"{SAMPLES}=600,{samples}")
    worker = toy.alone_with_the_slow_one()
    cluster.wait_for(lambda: len(cluster.running()) == 1, "the end of the other job")
    (job,) = cluster.running()
    if how == "scancel":
        cluster.ask("scancel", job)
    else:
        os.kill(worker, signal.SIGKILL)  # as the kernel does when the memory is used up
    assert process.wait(90) == 1, toy.said()
    rows = toy.rows()
    reasons = {"scancel": "was ended by SIGTERM", "kill -9": f"the scheduler ended its job {job}: FAILED, without a result"}
    assert rows[str(samples)]["status"] == "ok" and reasons[how] in rows["600"]["reason"]


@pytest.mark.parametrize(("launcher", "samples"), [("joblib", 23), ("submitit_local", 24)])
def test_a_worker_that_is_killed_ends_the_sweep_with_a_named_error(launcher, samples, project):
    toy = Toy(project, launcher)
    parallel = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    process = toy.start(f"hydra/launcher={launcher}", *parallel, f"{SAMPLES}=600,{samples}")
    os.kill(toy.alone_with_the_slow_one(), signal.SIGKILL)
    code = process.wait(60)
    if launcher == "joblib":
        assert code == 3 and "the launcher gave up (TerminatedWorkerError" in toy.said() and "1 points are finished and kept" in toy.said()
    else:
        assert code == 1 and "the scheduler ended its job" in toy.rows()["600"]["reason"]
    assert not subprocess.run(["pgrep", "-f", f"{toy.place}/work"], capture_output=True).stdout


def worker_of(work: Path) -> int | None:
    """The process that runs a point: which kill_with_parent watches. work: the folder of the clones."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            in_clone = (status.parent / "cwd").readlink().is_relative_to(work)
            command = (status.parent / "cmdline").read_bytes()
            parent = int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("PPid:")))
        except (OSError, StopIteration):
            continue
        if in_clone and b"kill_with_parent.py" in command:
            return parent
    return None


def test_eight_jobs_at_once_give_eight_experiments_whose_params_match_their_metrics(project):
    toy = Toy(project, "eight")
    done = toy.sweep("hydra/launcher=joblib", "hydra.launcher.n_jobs=8", f"{SAMPLES}=range(30,38)")
    assert done.returncode == 0, done.stdout + done.stderr
    assert dict(toy.refs().values()) == {str(n): pytest.approx(toy_pipeline.accuracy(n)) for n in range(30, 38)}
    assert sorted(toy.rows()) == [str(n) for n in range(30, 38)]


def test_ray_runs_the_points(project):
    if not importlib.util.find_spec("ray"):
        pytest.skip("not installed: pip install -c constraints.txt 'edgewise[ray]'")
    toy = Toy(project, "ray", RAY_USAGE_STATS_ENABLED="0")
    done = toy.sweep("hydra/launcher=ray", "hydra.launcher.num_cpus=2", f"{SAMPLES}=11,12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(toy.refs()) == 2
