"""Every fault of the SSH transport, provoked for real: it has its own word and one line that says what to do next."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from edgewise.agent import memory
from edgewise.config.schema import Bench, Warmup
from edgewise.devices import ssh
from edgewise.devices.access import connect
from edgewise.errors import DeviceError
from edgewise.measure.pairs import make_pair_runner
from edgewise.measure.runs import PlacedVariant
from tests.system.board import PROBE, fake_model, latency_job, plugin
from tests.system.conftest import free_port, keygen

pytestmark = pytest.mark.system
COUNTED = re.compile("device's kernel counts [1-9][0-9]* kill")  # on the whole device, which others may use


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(ssh, "RETRY_WAITS_S", (0.1,))


def fault(device: dict, act) -> DeviceError:
    with pytest.raises(DeviceError) as caught, connect(plugin(device)) as connection:
        act(connection)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3
    return caught.value


def probe(connection) -> list:
    return list(connection.run(PROBE, 30))


@pytest.fixture
def run_model(tmp_path):
    """run_model(load="kill") makes an act that places such a model and runs it."""

    def make(deadline_s: float = 30.0, runner: str | None = None, **does):
        model = fake_model(tmp_path / "model", **does)
        more = {"runner": runner} if runner else {}
        return lambda connection: connection.run(latency_job(connection.place(model), **more), deadline_s)

    return make


def test_unknown_host_key(sshd):
    sshd.know(None)
    error = fault(sshd.device(), probe)
    assert error.fault == "host_key" and "not known" in str(error) and "known_hosts" in str(error)


def test_changed_host_key(sshd, tmp_path):
    keygen(tmp_path / "other")
    sshd.know(tmp_path / "other.pub")
    error = fault(sshd.device(), probe)
    assert error.fault == "host_key" and "has changed" in str(error)


def test_refused_authentication(sshd, tmp_path):
    keygen(tmp_path / "stranger")
    error = fault(sshd.device(key=str(tmp_path / "stranger")), probe)
    assert error.fault == "auth" and "authorized_keys" in str(error)


def test_unreachable(sshd, capfd):
    error = fault(sshd.device(port=free_port()), probe)
    assert error.fault == "unreachable" and "refused" in str(error)
    assert capfd.readouterr().err.count("trying again") == 1


def test_name_not_found(sshd):
    error = fault(sshd.device(host="no-such-board.invalid"), probe)
    assert error.fault == "unknown_host" and "device.host" in str(error)


def test_a_broken_ssh_config(sshd):
    (sshd.folder / "ssh_config").write_text("NoSuchOption yes\n")
    assert fault(sshd.device(), probe).fault == "ssh_error"


@pytest.mark.parametrize("python", ["/no/such/python", "no-such-python", "/etc/hostname"])
def test_no_python(sshd, python):
    error = fault(sshd.device(python=python), probe)
    assert error.fault == "no_python" and python in str(error) and "device.python" in str(error)


def wrapped_python(folder: Path, base: str) -> str:
    """A python that sees `folder` first; so that it can lack packages or believe to be old."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}${{PYTHONPATH:+:$PYTHONPATH}}" exec {base} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_python_too_old(sshd, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 7, 3, 'final', 0)\nsys.version = '3.7.3 (default)'\n")
    error = fault(sshd.device(python=wrapped_python(tmp_path, sys.executable)), probe)
    assert error.fault == "python_too_old" and "python 3.7.3" in str(error)


@pytest.mark.parametrize(("has_numpy", "package"), [(False, "numpy"), (True, "onnxruntime")])
def test_runtime_missing(sshd, tmp_path, run_model, has_numpy, package):
    import numpy

    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60)
    for name in ("numpy", "numpy.libs") if has_numpy else ():
        (tmp_path / name).symlink_to(Path(numpy.__file__).parents[1] / name)
    python = wrapped_python(tmp_path, str(bare / "bin/python"))
    error = fault(sshd.device(python=python), run_model(runner="edgewise.formats.onnx.run"))
    assert error.fault == "runtime_missing" and f"pip install {package};" in str(error)


@pytest.mark.parametrize(
    ("does", "word", "seen"),
    [({"load": "hang"}, "deadline", "more than 3 s"), ({"load": "kill"}, "killed", "SIGKILL")],
)
def test_a_run_that_comes_to_no_end(sshd, run_model, does, word, seen):
    error = fault(sshd.device(run_max_s=3.0), run_model(**does))
    assert error.fault == word and seen in str(error)
    assert sshd.nothing_runs()


def test_agent_error(sshd):
    error = fault(sshd.device(), lambda connection: connection.run(latency_job("/no/such/folder"), 30))
    assert error.fault == "agent_error" and "inputs.npz" in str(error)


@pytest.fixture
def narrow_sshd(start_sshd):
    """narrow_sshd(mib) gives a board with so little memory, and the limit that the kernel enforces on it."""
    made = []

    def start(mib: int):
        limit = memory.create_limit(mib << 20)
        if not limit or not limit.folder:
            pytest.skip("this machine lets this user make no control group with a memory limit")
        made.append((start_sshd(prefix=limit.prefix), limit))
        return made[-1]

    yield start
    for board, limit in made:
        board.stop()
        limit.remove()
        assert not limit.folder.exists()


def test_a_kill_for_memory_with_the_kernels_word(narrow_sshd, run_model):
    board, limit = narrow_sshd(160)
    error = fault(board.device(), run_model(hold_mib=400))
    assert error.fault == "oom_killed" and COUNTED.search(str(error))
    assert limit.oom_kills() == 1


def test_two_models_that_fit_only_one_at_a_time(narrow_sshd, tmp_path):
    """Each alone is measured; both together are killed, and the message names the setting under which they are not."""
    board, limit = narrow_sshd(320)
    bench = Bench(name="x", processes=1, blocks=8, block_s=0.02, min_samples=1, warmup=Warmup(min_runs=2, min_s=0.0, max_s=0.02))
    models = [fake_model(tmp_path / name, hold_mib=180) for name in "vr"]

    def compared(connection, interleave: str):
        jobs = [latency_job(connection.place(model)) for model in models]
        fields = [
            {name: job[name] for name in ("runner", "model", "settings", "inputs", "scope", "preprocessing", "answer")} for job in jobs
        ]
        sides = [PlacedVariant(name, each, connection, 30.0, {}) for name, each in zip("vr", fields, strict=True)]
        return make_pair_runner(*sides, replace(bench, interleave=interleave))(True)

    error = fault(board.device(), partial(compared, interleave="blocks"))
    kills = limit.oom_kills()  # of the one model or of both
    assert error.fault == "oom_killed" and kills in (1, 2)
    assert COUNTED.search(str(error)) and "each runs alone: set bench.interleave=processes" in str(error)
    with connect(plugin(board.device())) as connection:
        runs = compared(connection, "processes")
    assert [len(run.blocks_ms) for run in runs] == [8, 8] and limit.oom_kills() == kills
    assert board.nothing_runs()


@pytest.mark.parametrize("options", ["size=6m", "nr_inodes=6"])
def test_disk_full(root, sshd, run_model, options):
    """By the look at free space before, and by the write itself."""
    sshd.workdir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options},mode=700", "tmpfs", str(sshd.workdir)], check=True)
    try:
        (sshd.workdir / "ballast").write_bytes(bytes(4 << 20))
        error = fault(sshd.device(), run_model())
        assert error.fault == "disk_full" and "free space on the device" in str(error)
        assert not list((sshd.workdir / "trees").glob("*.part-*"))
    finally:
        subprocess.run(["umount", str(sshd.workdir)], check=True)
