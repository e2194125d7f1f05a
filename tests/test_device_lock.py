"""The device lock with real processes: one at a time, another device at once, and a killed holder keeps nobody waiting."""

import itertools
import subprocess
import sys
import time

import pytest

from stages.core.config import Plugin
from stages.measuring.lock import exclusive, file_of
from tests.conftest import ROOT

BOARD = Plugin("board", "stages.devices.local", {"host": "board-1", "threads": 1})
HOLDER = """
import sys, time
from stages.core.config import Plugin
from stages.measuring.lock import exclusive
with exclusive(Plugin("board", "stages.devices.local", {"host": sys.argv[1], "threads": 4})):
    print(time.monotonic_ns(), flush=True)
    time.sleep(float(sys.argv[2]))
    print(time.monotonic_ns(), flush=True)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def holder(host: str, seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLDER, host, str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_never_hold_one_device_at_once():
    processes = [holder("board-1", 0.3) for _ in range(3)]
    said = [process.communicate(timeout=60) for process in processes]
    times = sorted(tuple(map(int, out.split())) for out, _ in said)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))
    assert sum("another process measures on the device 'board'" in err for _, err in said) >= 1


def test_a_killed_holder_keeps_nobody_waiting():
    process = holder("board-1", 600)
    process.stdout.readline()
    process.kill()
    process.wait()
    started = time.monotonic()
    with exclusive(BOARD):
        assert time.monotonic() - started < 1


def test_another_device_is_not_waited_for():
    process = holder("board-2", 600)
    process.stdout.readline()
    started = time.monotonic()
    with exclusive(BOARD):
        assert time.monotonic() - started < 1
    process.kill()
    process.communicate()


def test_how_a_device_is_used_does_not_make_it_another():
    assert file_of(BOARD) == file_of(Plugin("board", "stages.devices.local", {"host": "board-1", "threads": 8}))
    assert file_of(BOARD) != file_of(Plugin("board", "stages.devices.local", {"host": "board-2", "threads": 1}))


def test_the_lock_is_free_again_after_an_error():
    for _ in range(2):
        with pytest.raises(RuntimeError), exclusive(BOARD):
            raise RuntimeError
