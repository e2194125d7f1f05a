"""The wheel by itself: built, installed where no checkout is, `edgewise init`, the whole pipeline, an edited stage, a sweep.

The new environment has the wheel and, behind it, the packages of the one that runs the tests: nothing is downloaded.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from edgewise.cli import template
from tests.conftest import ROOT
from tests.support.workspace import TINY

pytestmark = pytest.mark.system

NETWORK = '''"""The user's own model."""

from torch import nn


def tiny(num_labels: int = 10) -> nn.Module:
    first = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(256, num_labels))
'''
VARIANTS = {
    "onnx-fp32": {"format": "onnx", "scheme": "fp32"},
    "onnx-int8-dynamic": {"format": "onnx", "scheme": "int8-dynamic"},
    "onnx-int8-static": {"format": "onnx", "scheme": "int8-static", "calibration": {"samples": 16}},
}
BUDGET = {"name": "none", "size_bytes": 10**9}  # every variant keeps it, so one is chosen and bundled
ALWAYS = {"compose", "probe-device", "probe-data", "visits", "track"}


def run(*command: object, folder: Path, **environment: str) -> str:
    """What a command prints; AssertionError with it where it fails."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST_", "MLFLOW_", "DVC_", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env={**own, **environment}, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def build_wheel(source: Path, target: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", target, source, folder=source)
    (wheel,) = target.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the working tree, in which an earlier release was built."""
    folder = tmp_path_factory.mktemp("source")
    for name in run("git", "ls-files", "-co", "--exclude-standard", folder=ROOT).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for left in ("build/lib/stages/old.py", "build/lib/edgewise/gone.py", "stages/__pycache__/compose.cpython-311.pyc"):
        (folder / left).parent.mkdir(parents=True, exist_ok=True)
        (folder / left).write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_library_and_the_files_of_a_project(source, wheel):
    found = contents(wheel)
    files = {name for name in found if ".dist-info/" not in name}
    library = {
        str(path.relative_to(source)) for path in (source / "edgewise").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    project = {str(name): (source / name).read_bytes() for name in template.files(source)}
    assert files == library | {f"edgewise/cli/project/{name}" for name in project}
    assert {name: found[f"edgewise/cli/project/{name}"] for name in project} == project
    assert {"dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config", "stages/compose.py"} <= project.keys()
    assert {name.split("/")[0] for name in files} == {"edgewise"} and "edgewise/py.typed" in files
    (kept,) = [text.decode() for name, text in found.items() if name.endswith("/METADATA")]
    metadata = Parser().parsestr(kept)
    assert metadata["Version"] == tomllib.loads((source / "pyproject.toml").read_text())["project"]["version"]
    assert "Project-URL" not in metadata and "Home-page" not in metadata


def test_the_source_distribution_builds_the_same_wheel(source, wheel, tmp_path):
    backend = "from setuptools import build_meta; import sys; print(build_meta.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", backend, tmp_path, folder=source)
    (packed,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert contents(build_wheel(unpacked, tmp_path)) == contents(wheel)


class Installed:
    """A project of the installed wheel, in a folder whose name has blanks and quotes."""

    def __init__(self, folder: Path, wheel: Path):
        self.home, self.bin = folder / "env", folder / "env/bin"
        run(sys.executable, "-m", "venv", "--without-pip", self.home, folder=folder)
        pip = (sys.executable, "-m", "pip", "--python", self.bin / "python", "install")
        run(*pip, "-q", "--no-deps", "--no-index", wheel, folder=folder)
        (site,) = self.home.glob("lib/python*/site-packages")
        (site / "behind.pth").write_text(
            f"{sysconfig.get_paths()['purelib']}\n"
        )  # its own .pth files, the editable install's, do not count
        (self.bin / "dvc").write_text(f"#!{self.bin}/python\nimport sys\nfrom dvc.cli import main\nsys.exit(main())\n")
        (self.bin / "dvc").chmod(0o755)
        self.folder = folder / "it's a camera"

    def run(self, *command: object, folder: Path | None = None) -> str:
        identity = {f"GIT_{who}_{what}": "test@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return run(*command, folder=folder or self.folder, PATH=f"{self.bin}{os.pathsep}{os.environ['PATH']}", **identity)

    def repro(self) -> set[str]:
        """The stages that ran, without those that always do."""
        return set(re.findall(r"^Running stage '(.*)':", self.run("dvc", "repro"), re.MULTILINE)) - ALWAYS

    def summary(self) -> dict:
        return json.loads((self.folder / "metrics/summary.json").read_text())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> Installed:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    made = Installed(tmp_path_factory.mktemp("installed"), wheel)
    made.run("edgewise", "init", made.folder.name, folder=made.folder.parent)
    (made.folder / "nets.py").write_text(NETWORK)
    params = {**TINY, "model": {**TINY["model"], "callable": "nets.tiny"}, "budget": BUDGET, "variants": VARIANTS}
    (made.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    made.run("git", "add", "--all")
    made.run("git", "commit", "-qm", "A model of my own")
    made.first = made.repro()
    return made


def test_nothing_comes_from_the_checkout(installed):
    code = "import edgewise.cli.main as m, sys; print(m.__file__); print(*sys.path, sep='\\n')"
    place, *path = installed.run("python", "-c", code).splitlines()
    assert Path(place).is_relative_to(installed.home) and str(ROOT) not in path
    assert installed.run("edgewise", "--version") == installed.run(
        "python", "-c", "import importlib.metadata as m; print('edgewise', m.version('edgewise'))"
    )


def test_the_pipeline_ends_well(installed):
    assert {f"evaluate@{name}" for name in VARIANTS} <= installed.first
    rows = installed.summary()["variants"]
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(VARIANTS, "ok")
    assert "onnx-int8-static" in installed.run("edgewise", "report")
    assert "all 3 variants are ok" in installed.run("edgewise", "report", "--check")
    assert "its answer for the first test sample" in installed.run("edgewise", "bundle", "--to", "device")
    assert "nothing new" in installed.run("edgewise", "track")
    assert installed.repro() == set()


def test_an_edited_stage_script_runs_again_and_a_comment_does_not(installed):
    script = installed.folder / "stages/evaluate.py"
    text = script.read_text()
    try:
        script.write_text(text + "\n# a note of the user\n")
        assert installed.repro() == set()
        script.write_text(text.replace("def main() -> None:\n", "def main() -> None:\n    print('edited')\n"))
        assert installed.repro() >= {f"evaluate@{name}" for name in VARIANTS}
    finally:
        script.write_text(text)
    installed.repro()


def test_a_sweep_runs_where_no_checkout_is(installed):
    said = installed.run("edgewise", "sweep", "--name", "first", "variants.onnx-int8-static.calibration.samples=8,16")
    assert "2 points" in said
    rows = json.loads((installed.folder / "metrics/sweeps/first.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["ok", "ok"]
