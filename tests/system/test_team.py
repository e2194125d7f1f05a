"""A team: one MLflow server on PostgreSQL, one DVC remote over SSH, two clones of one repository."""

import copy
import importlib.util
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests import toy_pipeline
from tests.system import postgres
from tests.toy_pipeline import VARIANT
from tests.workspace import TINY, Workspace

pytestmark = pytest.mark.system
PARAMS = copy.deepcopy(TINY)
PARAMS["variants"] = {name: TINY["variants"][name] for name in ("onnx-fp32", "onnx-int8-static")}
NEW = {"onnx-int8-dynamic": {"format": "onnx", "scheme": "int8-dynamic"}}
WRITERS = 4


class Member(Workspace):
    """Somebody's clone, made ready by hand: Workspace's own constructor would begin a repository."""

    def __init__(self, folder: Path, server: str):
        self.folder, self.server = folder, server

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
            pytest.skip(f"{package} is not installed: pip install -c constraints.txt -e '.[team]'")
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
        "compose",
        *(f"{stage}@{name}" for name in NEW for stage in ("quantize", "evaluate", "bench-on-device")),
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


def test_a_server_that_is_down_during_a_sweep_loses_nothing(server, tmp_path):
    toy = toy_pipeline.make(tmp_path)
    (tmp_path / ".edgewise").mkdir()
    environment = ("env", f"TOY_LOG={tmp_path}/.edgewise/toy.log", f"MLFLOW_TRACKING_URI={server.uri}")
    server.stop_server()
    try:
        done = toy.run(*environment, "python", "-m", "stages.sweep", "--name", "dark", f"variants.{VARIANT}.calibration.samples=10,20")
    finally:
        server.serve()
    assert done.returncode == 0 and "run `python -m stages.track --sweep dark` when the store is there" in done.stderr, done.stderr
    assert len(json.loads((tmp_path / "metrics/sweeps/dark.json").read_text())["rows"]) == 2
    before = len(runs(server))
    late = toy.run(*environment, "python", "-m", "stages.track", "--sweep", "dark")
    assert late.returncode == 0, late.stderr
    mine = [run for run in runs(server) if run.data.tags.get("sweep") == "dark"]
    assert len(mine) == 3 == len(runs(server)) - before and all(run.info.status == "FINISHED" for run in mine)
