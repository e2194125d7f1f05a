"""The device lock with real processes: one process at a time, other devices at the same time, and a killed holder blocks no one."""

import itertools
import os
import stat
import subprocess
import sys

import pytest

from edgewise.config.schema import Plugin
from edgewise.devices import access
from edgewise.devices.access import lock, lock_file
from edgewise.errors import StorageError
from tests.conftest import ROOT

BOARD = Plugin("board", "edgewise.devices.local", {"host": "board-1", "threads": 1})
HOLDER = """
import sys, time
from edgewise.config.schema import Plugin
from edgewise.devices.access import lock
with lock(Plugin("board", "edgewise.devices.local", {"host": sys.argv[1], "threads": 4})):
    print(time.monotonic_ns(), flush=True)
    sys.stdin.read()
    print(time.monotonic_ns(), flush=True)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def holder():
    """holder(HOST) starts a process that holds the device until its stdin is closed; it prints when it got the lock and when it ended."""
    started = []

    def start(host: str) -> subprocess.Popen:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", HOLDER, host]
        started.append(subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        with process:  # closes its pipes
            process.kill()


def test_two_processes_never_hold_one_device_at_once(holder):
    first = holder("board-1")
    taken = first.stdout.readline()
    others = [holder("board-1") for _ in range(2)]
    for other in others:
        other.stdin.close()  # it lets go as soon as it has got the lock
        other.stdin = None
        assert "another process measures on the device 'board'" in other.stderr.readline()
    said = [taken + first.communicate(timeout=120)[0], *(other.communicate(timeout=120)[0] for other in others)]
    times = sorted(tuple(map(int, out.split())) for out in said)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))


def test_a_killed_holder_blocks_no_one(holder, capfd):
    process = holder("board-1")
    process.stdout.readline()
    process.kill()
    process.wait()
    with lock(BOARD):
        assert "waiting" not in capfd.readouterr().err


def test_another_device_is_not_waited_for(holder, capfd):
    holder("board-2").stdout.readline()
    with lock(BOARD):
        assert "waiting" not in capfd.readouterr().err


def test_how_a_device_is_used_does_not_make_it_another():
    assert lock_file(BOARD) == lock_file(Plugin("board", "edgewise.devices.local", {"host": "board-1", "threads": 8}))
    assert lock_file(BOARD) != lock_file(Plugin("board", "edgewise.devices.local", {"host": "board-2", "threads": 1}))


def test_the_lock_is_free_again_after_an_error():
    for _ in range(2):
        with pytest.raises(RuntimeError), lock(BOARD):
            raise RuntimeError


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A folder for temporary files, without a session's own folder; the place of the lock files in it."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(access.tempfile, "tempdir", str(tmp_path))
    assert access.lock_folder() == tmp_path / f"edgewise-{os.getuid()}"
    return access.lock_folder()


def refused(device: Plugin = BOARD) -> str:
    with pytest.raises(StorageError) as caught, lock(device):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_other_user_can_read_the_folder(shared):
    before = os.umask(0)
    try:
        with lock(BOARD):
            assert stat.S_IMODE(shared.stat().st_mode) == 0o700
            assert stat.S_IMODE(lock_file(BOARD).stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_folder_that_is_a_link_is_refused(shared, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shared.symlink_to(tmp_path / "elsewhere")
    assert str(shared) in refused() and not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_of_another_user_is_refused(shared, monkeypatch):
    shared.mkdir(mode=0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert f"{shared} belongs to user {owner}, not to user {owner + 1}" in refused() and not list(shared.iterdir())


def test_a_folder_in_which_anybody_may_write_is_refused(shared):
    shared.mkdir()
    shared.chmod(0o777)
    assert "chmod 700" in refused() and not list(shared.iterdir())


def test_a_lock_file_that_is_a_link_is_refused_and_its_target_stays(shared, tmp_path):
    (tmp_path / "precious").write_text("data")
    shared.mkdir(mode=0o700)
    lock_file(BOARD).symlink_to(tmp_path / "precious")
    assert str(lock_file(BOARD)) in refused() and (tmp_path / "precious").read_text() == "data"


def test_a_lock_file_is_not_emptied(shared):
    shared.mkdir(mode=0o700)
    lock_file(BOARD).write_text("kept")
    with lock(BOARD):
        assert lock_file(BOARD).read_text() == "kept"


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    assert "XDG_RUNTIME_DIR" in refused()
