"""The SSH transport against a real sshd: what works, what is sent, and how the cache is kept."""

import os
import sys
import time
from pathlib import Path

import pytest

from edgewise.devices.access import connect
from edgewise.measure.runs import Run
from tests.system.board import PROBE, fake_model, latency_job, plugin

pytestmark = pytest.mark.system


def test_a_probe_takes_seconds_and_a_run_measures(sshd, tmp_path):
    start = time.monotonic()
    with connect(plugin(sshd.device())) as device:
        facts = Run.of(device.run(PROBE, 30), facts=1).one("facts")["facts"]
        assert time.monotonic() - start < 15
        placed = device.place(fake_model(tmp_path / "model", sleep_ms=1))
        run = Run.of(device.run(latency_job(placed), 30), block=1)
    assert facts["packages"]["onnxruntime"] and facts["python"] == sys.version.split()[0]
    assert run.blocks_ms[0].min() >= 1.0


def test_noise_of_a_login_shell_is_skipped(start_sshd, tmp_path):
    noisy = start_sshd(options=["ForceCommand printf 'Last login: today\\nand no end of line'; exec sh -c \"$SSH_ORIGINAL_COMMAND\""])
    with connect(plugin(noisy.device())) as device:
        placed = device.place(fake_model(tmp_path / "model", **{"print": "noise of the runtime"}))
        assert Run.of(device.run(latency_job(placed), 30), block=1)


def test_python_and_workdir_may_lie_in_the_home_folder(sshd, tmp_path):
    """Relative to where a login starts; `~/` says the same."""
    from_home = os.path.relpath(sys.executable, Path.home())
    with connect(plugin(sshd.device(python=f"~/{from_home}"))) as device:
        placed = device.place(fake_model(tmp_path / "model"))
        assert Run.of(device.run(latency_job(placed), 30), block=1)


def test_a_file_is_sent_once_and_again_where_it_was_spoilt(sshd, tmp_path):
    model = fake_model(tmp_path / "model", sleep_ms=1)
    places = []
    for spoil in (False, False, True):
        if spoil:
            (places[-1][0] / "model.json").write_text('{"sleep_ms": 9}')
        with connect(plugin(sshd.device())) as device:
            folder = Path(device.place(model))
        places.append((folder, (folder / "model.json").stat().st_ino))
    assert places[0] == places[1] and places[1][0] == places[2][0]
    assert (places[2][0] / "model.json").read_bytes() == (model / "model.json").read_bytes()


def test_the_cache_keeps_within_its_limit_and_drops_what_was_not_used_for_longest(sshd, tmp_path):
    def place(name: str) -> str:
        model = fake_model(tmp_path / name, name=name)
        (model / "weights").write_bytes(name.encode() * 400_000)
        time.sleep(0.05)
        with connect(plugin(sshd.device(cache_mb=1))) as device:
            return Path(device.place(model)).name

    first, second = place("a"), place("b")
    assert place("a") == first
    third = place("c")
    assert {path.name for path in (sshd.workdir / "trees").iterdir()} == {first, third} and second != third


def test_what_a_runtime_starts_beside_itself_ends_with_the_run(sshd, tmp_path):
    script = tmp_path / "python"
    helper = 'case "$*" in *agent.program*) sleep 60 < /dev/null > /dev/null 2>&1 & ;; esac'
    script.write_text(f'#!/bin/sh\n{helper}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    with connect(plugin(sshd.device(python=str(script)))) as device:
        assert Run.of(device.run(PROBE, 30), facts=1)
        assert sshd.nothing_runs()
