"""Artifacts are complete or absent, and their manifests describe them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgewise import errors
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.errors import EdgewiseError, InfrastructureError, VariantFailed
from edgewise.proof import isolation
from tests.conftest import ROOT


def test_a_manifest_reads_back_equal(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"abc")
    manifest = Manifest(kind="variant", inputs=(Port("image", (None, 3, 8, 8), "float32", "NCHW", "image"),), labels=("a", "b"))
    artifact.write(tmp_path, manifest)
    read = artifact.read(tmp_path)
    assert read.inputs == manifest.inputs and read.labels == manifest.labels
    assert read.files == {"model.bin": {"bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}
    assert read.size_bytes == 3


def test_nothing_is_left_of_a_failed_build(tmp_path):
    target = tmp_path / "thing"
    with pytest.raises(RuntimeError), artifact.building(target, tmp_path) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert not target.exists() and not list((tmp_path / ".tmp").iterdir())


def test_a_killed_build_leaves_no_target_and_the_next_one_is_clean(tmp_path):
    code = (
        "import time; from pathlib import Path; from edgewise.artifacts import artifact\n"
        "with artifact.building(Path('thing'), Path('.')) as folder:\n"
        "    (folder / 'half').write_text('x'); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate()
    assert not (tmp_path / "thing").exists()
    with artifact.building(tmp_path / "thing", tmp_path) as folder:
        assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: run `dvc repro`"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "has schema None"),
        (b'{"schema": 99}', "has schema 99"),
        (b'{"schema": 1}', "is no manifest"),
        (b'{"schema": 1, "kind": "x", "inputs": [{}], "outputs": [], "labels": []}', "is no manifest"),
        (b'{"schema": 1, "kind": "x", "inputs": [], "outputs": [], "labels": null}', "is no manifest"),
        (b'{"schema": 1, "kind": "x", "inputs": [], "outputs": [], "labels": [], "odd": 1}', "is no manifest"),
    ],
)
def test_unreadable_manifests(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(EdgewiseError, match=message):
        artifact.read(tmp_path)


def test_a_failure_is_passed_on_with_its_reason():
    with pytest.raises(VariantFailed, match="the cause"):
        artifact.require_ok(Manifest(kind="variant", status="failed", reason="the cause"), "models/variants/v")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        ("errors.ConfigError('bad')", 2, "error: bad"),
        ("errors.MissingExtra('nncf', 'openvino')", 3, "pip install -c constraints.txt 'edgewise[openvino]'"),
        ("OSError(28, 'No space left on device', 'models')", 3, "No space left on device: models; free some space"),
        ("KeyboardInterrupt()", 130, "interrupted"),
        ("errors.VariantFailed('x')", 0, "error: x"),
    ],
)
def test_exit_codes(error, code, text):
    script = f"from edgewise import errors\ndef main(): raise {error}\nerrors.run_main(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code and text in done.stderr and "Traceback" not in done.stderr


RUNNER = """
import os, signal, numpy
class Session:
    inputs = [{"name": "x", "shape": [BATCH, 2], "dtype": "float32"}]
    def run(self, feeds):
        assert BATCH is None or len(feeds["x"]) == BATCH
        ACTION
        return {"y": feeds["x"] * 2}
def load(folder, settings):
    return Session()
"""


def runner(folder: Path, monkeypatch, action: str = "pass", batch: int | None = None) -> str:
    name = f"fake_format_{time.monotonic_ns()}"
    (folder / name).mkdir()
    (folder / name / "run.py").write_text(RUNNER.replace("ACTION", action).replace("BATCH", str(batch)))
    monkeypatch.syspath_prepend(str(folder))
    return name


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_isolated_outputs_for_any_batch(tmp_path, monkeypatch, batch):
    feeds = {"x": np.arange(20, dtype=np.float32).reshape(10, 2)}
    given = isolation.compute_outputs(runner(tmp_path, monkeypatch, batch=batch), tmp_path, {}, feeds)
    np.testing.assert_array_equal(given["y"], feeds["x"] * 2)


@pytest.mark.parametrize(
    ("action", "kind", "message"),
    [
        ("os.abort()", VariantFailed, "aborts on this file .SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", VariantFailed, "SIGSEGV"),
        ("raise RuntimeError('op 7 not there')", VariantFailed, "refuses this file: RuntimeError: op 7 not there"),
        ("os.kill(os.getpid(), signal.SIGKILL)", InfrastructureError, "killed"),
        ("raise MemoryError", InfrastructureError, "exit code 1"),
    ],
)
def test_a_bad_file_is_distinguished_from_an_infrastructure_error(tmp_path, monkeypatch, action, kind, message):
    with pytest.raises(kind, match=message):
        isolation.compute_outputs(runner(tmp_path, monkeypatch, action), tmp_path, {}, {"x": np.zeros((1, 2), np.float32)})


def test_the_error_tree_is_drawn_as_it_is():
    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, EdgewiseError):
            assert name in drawn


def test_a_manifest_in_a_folder_below_is_a_file_like_any_other(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / artifact.MANIFEST).write_text("{}")
    artifact.write(tmp_path, artifact.Manifest(kind="bundle"))
    assert list(artifact.read(tmp_path).files) == [f"part/{artifact.MANIFEST}"]
