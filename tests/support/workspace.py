"""A whole Edgewise project in a temporary folder, small enough to run the real pipeline in seconds."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

TINY: dict[str, Any] = {
    "seed": 0,
    "data": {"name": "digits", "path": None, "groups": None, "image_size": 16},
    "model": {"name": "callable", "path": None, "weights": None, "callable": "tests.support.sources.digits_network"},
    "train": {"name": "default", "epochs": 1},
    "device": {"name": "local", "host": None, "threads": 1},
    "bench": {"name": "smoke", "block_s": 0.05},
    "budget": {"name": "none"},
    "reference": "onnx-fp32",
    "variants": {
        "onnx-fp32": {"format": "onnx", "scheme": "fp32"},
        "onnx-int8-static": {"format": "onnx", "scheme": "int8-static", "calibration": {"samples": 16}},
        "openvino-fp32": {"format": "openvino", "scheme": "fp32"},
    },
}
ALWAYS = {"compose", "probe-device", "probe-data", "visits", "track"}


class Workspace:
    """A copy of the working tree with its own git and DVC, and `params.yaml` as given. hidden: packages that its processes cannot see, by
    import name. more: environment variables for its processes."""

    def __init__(self, folder: Path, params: dict[str, Any]):
        self.folder = folder
        self.hidden: tuple[str, ...] = ()
        self.more: dict[str, str] = {}
        names = self._git("ls-files", "-co", "--exclude-standard", cwd=ROOT).stdout.splitlines()
        for name in names:
            if (ROOT / name).is_file() and not name.startswith(("metrics/", "docs/", "dvc.lock")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        self.edit("params.yaml", lambda _: yaml.safe_dump(params, sort_keys=False))
        self._git("init", "-q")
        self._git("config", "user.email", "test@example.invalid")
        self._git("config", "user.name", "Test")
        self._git("add", "-A")
        self._git("commit", "-qm", "Start")

    def _git(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=cwd or self.folder, capture_output=True, text=True, check=True)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "PYTEST_"))}
        modules = os.pathsep.join((str(self.folder / "tests/support/hidden"), str(self.folder)))
        return {**own, "PATH": path, "PYTHONPATH": modules, "EDGEWISE_TESTS_HIDE": ",".join(self.hidden), **self.more}

    def run(self, *command: str, timeout: float = 400) -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout)

    def start(self, *command: str, log: Path) -> subprocess.Popen:
        with log.open("w") as stream:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )

    def repro(self, *arguments: str) -> set[str]:
        """`dvc repro`; the stages that really ran, without the always-changed ones. AssertionError with the log where it failed."""
        done = self.run("dvc", "repro", *arguments)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return set(re.findall(r"^Running stage '(.*)':", done.stdout, re.M)) - ALWAYS

    def edit(self, name: str, change: Callable[[str], str]) -> str:
        """Change a file; returns what was in it."""
        path = self.folder / name
        before = path.read_text()
        path.write_text(change(before))
        return before

    def params(self, change: Callable[[dict[str, Any]], Any]) -> str:
        def rewrite(text: str) -> str:
            tree = yaml.safe_load(text)
            change(tree)
            return yaml.safe_dump(tree, sort_keys=False)

        return self.edit("params.yaml", rewrite)
