"""A full disk, a folder that cannot be written, a missing extra: one clear line, exit code 3, no partial results.

Real file systems: a small tmpfs is mounted over models/ inside a mount namespace of the test's own.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.errors import MissingExtra, VariantFailed
from edgewise.proof import making
from tests.conftest import ROOT

NAMESPACE = [
    "unshare",
    "--mount",
    *([] if Path("/root").stat().st_uid == 0 and Path.home() == Path("/root") else ["--map-root-user", "--user"]),
]


def mounted(options: str, command: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a shell command in `folder` with a tmpfs over models/; skips where mounting is not allowed."""
    (folder / "models").mkdir()
    probe = subprocess.run([*NAMESPACE, "sh", "-c", f"mount -t tmpfs -o {options} none models"], cwd=folder, capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no mount namespace here: {probe.stderr.strip()}")
    script = f"mount -t tmpfs -o {options} none models && {command}; code=$?; find models -type f | sed 's/^/left: /'; exit $code"
    return subprocess.run(
        [*NAMESPACE, "sh", "-c", script], cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )


BUILD = f"""{sys.executable} -c "
import pathlib, numpy
from edgewise import errors\nfrom edgewise.artifacts import artifact
def main():
    with artifact.building(pathlib.Path('models/variants/v')) as folder:
        numpy.save(folder / 'big.npy', numpy.zeros(10**6))
errors.run_main(main)" """


def test_a_full_disk_is_named_and_leaves_nothing(project):
    done = mounted("size=256k", BUILD, project)
    assert done.returncode == 3 and "No space left on device" in done.stderr and "free some space" in done.stderr
    assert "Traceback" not in done.stderr and "left:" not in done.stdout


def test_a_folder_that_cannot_be_written_is_named(project):
    done = mounted("ro", f"{sys.executable} -m stages.compose", project)
    assert done.returncode == 3 and "Read-only file system" in done.stderr and "models" in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_extra_names_the_command_that_installs_it():
    with (
        pytest.raises(
            MissingExtra, match=r"'nncf' is not installed; install it with: pip install -c constraints.txt 'edgewise\[openvino\]'"
        ),
        making.translate_errors({"nncf": "openvino"}),
    ):
        raise ModuleNotFoundError("No module named 'nncf'", name="nncf")


def test_a_module_that_no_extra_has_is_not_disguised():
    with pytest.raises(ModuleNotFoundError), making.translate_errors({"nncf": "openvino"}):
        raise ModuleNotFoundError("No module named 'mine'", name="mine")


def test_a_formats_cannot_becomes_the_variants_failure():
    with pytest.raises(VariantFailed, match="no MatMul in this net"), making.translate_errors({}):
        raise ValueError("no MatMul\n in this net")


def test_a_flipped_byte_changes_the_manifest(tmp_path):
    np.save(tmp_path / "weights.npy", np.zeros(10))
    artifact.write(tmp_path, Manifest(kind="variant"))
    before = artifact.read(tmp_path).files["weights.npy"]["sha256"]
    content = bytearray((tmp_path / "weights.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "weights.npy").write_bytes(content)
    assert artifact.sha256(tmp_path / "weights.npy") != before
