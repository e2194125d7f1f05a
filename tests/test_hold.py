"""The device kept against other hosts: real processes, one after the other, and no lock that outlives its holder."""

import json
import subprocess
import sys
import time

import pytest

from stages.devices.keeping import Hold
from stages.payload import hold
from stages.payload.faults import Fault

COMMAND = (sys.executable, hold.__file__)


class Host:
    """One that talks to payload.hold by hand."""

    def __init__(self, workdir, who: str, wait_s: float = 20.0, silent_s: float = 20.0):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe)
        request = {"workdir": str(workdir), "who": who, "wait_s": wait_s, "silent_s": silent_s}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def reply(self) -> dict:
        line = next(line for line in self.process.stdout if line.strip())
        return json.loads(line[len(hold.MARK) :])


@pytest.fixture
def host(tmp_path):
    """host(who, ...) asks for the device in one workdir; all are ended."""
    started = []

    def ask(who: str, **seconds: float) -> Host:
        started.append(Host(tmp_path / "device", who, **seconds))
        return started[-1]

    yield ask
    for one in started:
        one.process.kill()
        one.process.wait()
        one.process.stdout.close()


def test_a_second_host_waits_and_is_told_for_whom(host):
    first = host("ann@desk")
    assert first.reply() == {"held": True}
    second = host("bob@laptop", wait_s=1.0)
    assert second.reply()["waiting"].startswith("ann@desk since ")
    fault = second.reply()
    assert fault["fault"] == "busy" and fault["seen"].startswith("ann@desk since") and "did not end within 1 s" in fault["seen"]


@pytest.mark.parametrize("end", ["stdin", "kill"])
def test_the_next_one_gets_it_however_the_holder_ends(host, end):
    first = host("ann@desk")
    assert "held" in first.reply()
    second = host("bob@laptop")
    assert "waiting" in second.reply()
    first.process.stdin.close() if end == "stdin" else first.process.kill()
    assert second.reply() == {"held": True}
    assert "bob@laptop" in host("eve@lab", wait_s=0.0).reply()["seen"]


def test_a_holder_whose_host_is_silent_lets_go(host):
    first = host("ann@desk", silent_s=0.5)
    assert "held" in first.reply()
    assert first.process.wait(20) == 0
    assert host("bob@laptop", wait_s=0.0).reply() == {"held": True}


def test_a_host_that_is_heard_of_keeps_it(host):
    first = host("ann@desk", silent_s=1.5)
    assert "held" in first.reply()
    for _ in range(12):
        time.sleep(0.2)
        first.process.stdin.write(b"\n")
        first.process.stdin.flush()
    assert first.process.poll() is None, "2.4 s, silent for no more than 0.2 s of them"


def keeper(workdir, wait_s: float = 0.0, command=COMMAND) -> Hold:
    return Hold(command, "board", str(workdir), wait_s, lambda code, stderr: Fault("no_python", f"{code} {stderr.strip()}"))


def test_the_hosts_end_takes_it_again_after_its_link_was_lost(tmp_path):
    one, other = keeper(tmp_path), keeper(tmp_path)
    one.ensure()
    with pytest.raises(Fault, match=r"^board: \w+@\S+ since \d\d:\d\d:\d\d measures on it.*wait for it to end$") as caught:
        other.ensure()
    assert caught.value.word == "busy"
    assert one.process is not None
    one.process.kill()
    one.process.wait()
    one.ensure()
    assert one.process.poll() is None
    one.end()
    other.ensure()
    other.end()


def test_a_program_that_does_not_start_is_explained(tmp_path):
    with pytest.raises(Fault, match=r"^127 no such python; install python") as caught:
        keeper(tmp_path, command=("sh", "-c", "echo no such python >&2; exit 127")).ensure()
    assert caught.value.word == "no_python"
