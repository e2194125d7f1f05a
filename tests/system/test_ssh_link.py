"""A link that is lost in mid-run: by the end of the server's process, and by a cable that is pulled (a veth pair set down)."""

import os
import subprocess
import threading
import time

import pytest

from edgewise.agent.protocol import Fault
from edgewise.devices import ssh
from edgewise.devices.access import connect
from edgewise.measure.runs import Run
from tests.system.board import fake_model, latency_job, plugin
from tests.system.conftest import children

pytestmark = pytest.mark.system
HERE, THERE = "10.203.77.1", "10.203.77.2"


class Running(threading.Thread):
    """One job in a thread of its own; `events` or `fault` afterwards."""

    def __init__(self, connection, job: dict, deadline_s: float):
        super().__init__(daemon=True)
        self.connection, self.job, self.deadline_s = connection, job, deadline_s
        self.events, self.fault = None, None

    def run(self) -> None:
        try:
            self.events = list(self.connection.run(self.job, self.deadline_s))
        except Fault as fault:
            self.fault = fault


def started(sshd, connection, tmp_path, deadline_s: float, block_s: float) -> Running:
    """A run that has begun on the device."""
    placed = connection.place(fake_model(tmp_path / "model", sleep_ms=5))
    running = Running(connection, latency_job(placed, block_s=block_s), deadline_s)
    running.start()
    wait_for(lambda: any("edgewise.agent.program" in line and "sh -c" not in line for line in sshd.running()))
    time.sleep(1.0)
    return running


def wait_for(condition, within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_end_of_the_server_is_a_dropped_link_and_ends_the_run(sshd, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh, "RETRY_WAITS_S", ())
    with connect(plugin(sshd.device())) as connection:
        running = started(sshd, connection, tmp_path, 60.0, 60.0)
        for child in children(sshd.process.pid):
            os.kill(child, 9)
        running.join(20)
        assert running.fault.word == "dropped" and "check the network" in str(running.fault)
        assert sshd.nothing_runs()


@pytest.fixture
def pulled(root, start_sshd):
    """An sshd behind a cable: (sshd, set_link) where set_link("down") pulls it."""
    mark = f"ew{time.monotonic_ns() % 10**9}"  # a pair of an earlier test may still be on its way out
    space, near, far = f"{mark}n", f"{mark}a", f"{mark}b"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        ip("netns", "add", space)
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", space)
    except (OSError, subprocess.CalledProcessError) as error:
        subprocess.run(["ip", "netns", "del", space], capture_output=True)
        pytest.skip(f"no network namespace with a veth pair here: {getattr(error, 'stderr', error)}")
    try:
        ip("addr", "add", f"{HERE}/30", "dev", near)
        ip("-n", space, "addr", "add", f"{THERE}/30", "dev", far)
        ip("link", "set", near, "up")
        ip("-n", space, "link", "set", far, "up")
        board = start_sshd(host=THERE, prefix=("ip", "netns", "exec", space))
        yield board, lambda state: ip("link", "set", near, state)
        board.stop()
    finally:
        ip("netns", "del", space)


def test_a_pulled_cable_is_a_dropped_link_and_the_run_ends_at_its_own_deadline(pulled, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh, "RETRY_WAITS_S", ())
    board, set_link = pulled
    with connect(plugin(board.device(run_max_s=20.0))) as connection:
        running = started(board, connection, tmp_path, 60.0, 60.0)
        set_link("down")
        running.join(15)
        assert running.fault.word == "dropped", running.fault
        assert board.running(), "the server cannot know that the cable is out"
        assert board.nothing_runs(within_s=25.0)


def test_a_cable_that_comes_back_gives_a_new_run_and_ends_the_old_one(pulled, tmp_path):
    board, set_link = pulled
    with connect(plugin(board.device())) as connection:
        running = started(board, connection, tmp_path, 60.0, 4.0)
        first = set(board.running())
        set_link("down")
        time.sleep(9.0)
        set_link("up")
        running.join(40)
        assert running.fault is None and len(Run.of(running.events, block=1, hello=1, done=1).events) == 6
        assert not first & set(board.running())
    assert board.nothing_runs()
