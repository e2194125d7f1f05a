"""A team: one MLflow server on PostgreSQL, one DVC remote over SSH, two clones of one repository."""

import copy
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support import toy_pipeline
from tests.support.toy_pipeline import VARIANT
from tests.support.workspace import TINY, Workspace
from tests.system import mlflow_picture, postgres

pytestmark = pytest.mark.system
PARAMS = copy.deepcopy(TINY)
PARAMS["variants"] = {name: TINY["variants"][name] for name in ("onnx-fp32", "onnx-int8-static")}
NEW = {"onnx-int8-dynamic": {"format": "onnx", "scheme": "int8-dynamic"}}
WRITERS = 4


class Member(Workspace):
    """Somebody's clone, made ready by hand: Workspace's own constructor would begin a repository."""

    def __init__(self, folder: Path, server: str):
        self.folder, self.server = folder, server
        self.hidden, self.more = (), {}

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "MLFLOW_TRACKING_URI": self.server}

    def must(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def share(self, subject: str) -> None:
        self.must("git", "add", "-A")
        self.must("git", "commit", "-qm", subject)
        self.must("git", "push", "-q", "origin", "HEAD:main")
        self.must("dvc", "push", "-q")

    def connect(self, sshd) -> None:
        """What each member sets for himself: his key."""
        for key, value in {"keyfile": sshd.folder / "user", "user": "root"}.items():
            self.must("dvc", "remote", "modify", "--local", "store", key, str(value))

    def metrics(self) -> dict[str, str]:
        return {str(p.relative_to(self.folder)): p.read_text() for p in sorted((self.folder / "metrics").rglob("*.json"))}


@pytest.fixture(scope="module")
def server():
    if absent := postgres.missing():
        pytest.skip(f"not installed: {', '.join(absent)}; tests/system/install.sh installs them as root")
    for package in ("psycopg2", "dvc_ssh"):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed: pip install -c constraints.txt 'edgewise[team]'")
    with tempfile.TemporaryDirectory(prefix="team-") as folder:
        Path(folder).chmod(0o755)
        with postgres.tracking(Path(folder)) as made:
            yield made


def client(server):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=server.uri)


def runs(server) -> list:
    store = client(server)
    return store.search_runs([e.experiment_id for e in store.search_experiments()], max_results=1000)


def test_a_team(server, start_sshd, root, tmp_path):
    """One story, since each step needs the one before: the first measures and shares, four write at once, the second adds a variant."""
    sshd = start_sshd(options=["Subsystem sftp internal-sftp"])
    origin, first = tmp_path / "origin.git", Member(tmp_path / "first", server.uri)
    first.folder.mkdir()
    Workspace(first.folder, PARAMS)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(origin)], check=True)
    first.must("git", "remote", "add", "origin", str(origin))
    first.must("dvc", "remote", "add", "-q", "-d", "store", f"ssh://127.0.0.1:{sshd.port}{tmp_path / 'store'}")
    first.connect(sshd)
    first.must("dvc", "repro", "-q", "report")

    write_at_once(first, tmp_path)
    written = runs(server)
    assert sorted(run.info.run_name for run in written) == sorted(PARAMS["variants"])
    assert all(run.info.status == "FINISHED" and run.data.tags["current"] == "true" for run in written)
    versions = client(server).search_model_versions()
    assert len({version.tags["edgewise.key"] for version in versions}) == len(versions) > 0

    first.repro()
    first.share("Measure two variants")
    subprocess.run(["git", "clone", "-q", str(origin), str(tmp_path / "second")], check=True)
    second = Member(tmp_path / "second", server.uri)
    for key in ("user.name", "user.email"):
        second.must("git", "config", key, "second@example.invalid")
    second.connect(sshd)
    second.must("dvc", "pull", "-q")
    before = second.metrics()
    assert before == first.metrics() and not second.repro() and second.metrics() == before
    assert len(runs(server)) == len(PARAMS["variants"])

    second.params(lambda tree: tree["variants"].update(NEW))
    ran = second.repro()
    assert ran == {
        *(f"{stage}@{name}" for name in NEW for stage in ("quantize", "evaluate", "bench-on-device")),
        "prune",
        "report",
        "bundle",
    }
    second.share("Add a variant")
    first.must("git", "pull", "-q", "origin", "main")
    first.must("dvc", "pull", "-q")
    assert not first.repro() and first.metrics() == second.metrics()
    assert set(json.loads(first.metrics()["metrics/summary.json"])["variants"]) == {*PARAMS["variants"], *NEW}
    assert len(runs(server)) == len(PARAMS["variants"]) + len(NEW)


def write_at_once(member: Member, tmp_path: Path) -> None:
    """`track` from as many copies of the clone, which share no lock, at the same moment."""
    copies = [Member(tmp_path / f"copy{number}", member.server) for number in range(WRITERS)]
    for made in copies:
        shutil.copytree(member.folder, made.folder, symlinks=True)
        shutil.rmtree(made.folder / ".edgewise", ignore_errors=True)
    writers = [made.start("python", "-m", "stages.track", log=made.folder / "track.log") for made in copies]
    for made, writer in zip(copies, writers, strict=True):
        assert writer.wait(180) == 0, (made.folder / "track.log").read_text()
        shutil.rmtree(made.folder)


@pytest.fixture(scope="module")
def dark(server, tmp_path_factory):
    """A sweep whose server is down until it has ended: what it said, its project, and how many runs there were before."""
    toy = toy_pipeline.make(tmp_path_factory.mktemp("dark"))
    (toy.folder / ".edgewise").mkdir()
    toy.given = ("env", f"TOY_LOG={toy.folder}/.edgewise/toy.log", f"MLFLOW_TRACKING_URI={server.uri}", "python", "-m")
    toy.before = len(runs(server))
    server.stop_server()
    try:
        toy.done = toy.run(*toy.given, "edgewise.cli.main", "sweep", "--name", "dark", f"variants.{VARIANT}.calibration.samples=10,20")
    finally:
        server.serve()
    toy.late = toy.run(*toy.given, "edgewise.cli.main", "track", "--sweep", "dark")
    return toy


def mine(server) -> list:
    return [run for run in runs(server) if run.data.tags.get("sweep") == "dark"]


def test_a_server_that_is_down_during_a_sweep_loses_nothing(server, dark):
    done, late = dark.done, dark.late
    assert done.returncode == 0 and "run `edgewise track --sweep dark` when the store is there" in done.stderr, done.stderr
    assert len(json.loads((dark.folder / "metrics/sweeps/dark.json").read_text())["rows"]) == 2
    assert late.returncode == 0, late.stderr
    found = mine(server)
    assert len(found) == 3 == len(runs(server)) - dark.before and all(run.info.status == "FINISHED" for run in found)


def test_the_ui_shows_the_runs_of_a_sweep_below_it_with_its_metrics_and_the_figure(server, dark):
    """In a real browser, after what a user does by hand: open the sweep, choose three columns."""
    if not shutil.which("chromium"):
        pytest.skip("chromium is not installed; tests/system/install.sh installs it as root")
    (parent,) = [run for run in mine(server) if run.info.run_name == "sweep dark"]
    place = f"/experiments/{parent.info.experiment_id}/runs"
    page = mlflow_picture.browse(server.uri, f"{place}?startTime=ALL&searchFilter=tags.sweep%20%3D%20'dark'", "--dump-dom")
    shown = re.findall(r">(sweep dark|sweep-[0-9a-f]{10} [a-z0-9-]+)</span>", page)
    assert shown[0] == "sweep dark" and sorted(shown) == sorted(run.info.run_name for run in mine(server))
    for name, cell in {"accuracy_top1": "0.85", "latency_ratio_to_reference": "0.4", "size_bytes": "1000"}.items():
        assert f'data-testid="sort-header-{name}"' in page and re.search(rf"\bmetrics\.`{name}`.*?>{cell}<", page)
    figure = mlflow_picture.browse(server.uri, f"{place}/{parent.info.run_id}/artifacts/sweep/dark.png", "--dump-dom")
    assert re.search(r'<img alt="sweep/dark.png" src="blob:', figure)
