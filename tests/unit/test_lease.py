"""The lease of a device: real processes wait for each other, and no lease outlives its holder."""

import contextlib
import json
import os
import stat
import subprocess
import sys
import time

import pytest

from edgewise.agent import cache, lease
from edgewise.agent.protocol import Fault
from edgewise.devices.access import Lease

pytestmark = pytest.mark.lengthy  # agents that run, and waits for them

COMMAND = (sys.executable, lease.__file__)


class Host:
    """A host that talks to agent.lease directly."""

    def __init__(self, workdir, who: str, wait_s: float = 120.0, silent_s: float = 120.0):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe)
        request = {"workdir": str(workdir), "who": who, "wait_s": wait_s, "silent_s": silent_s}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def reply(self) -> dict:
        line = next(line for line in self.process.stdout if line.strip())
        return json.loads(line[len(lease.MARK) :])


@pytest.fixture
def host(tmp_path):
    """host(who, ...) asks for the device in one workdir; all are ended."""
    started = []

    def ask(who: str, **seconds: float) -> Host:
        started.append(Host(tmp_path / "device", who, **seconds))
        return started[-1]

    yield ask
    for one in started:
        with one.process:  # closes its pipes
            one.process.kill()


def test_a_second_host_waits_and_learns_who_holds_the_lease(host):
    first = host("ann@desk")
    assert first.reply() == {"held": True}
    second = host("bob@laptop", wait_s=1.0)
    assert second.reply()["waiting"].startswith("ann@desk since ")
    fault = second.reply()
    assert fault["fault"] == "busy" and fault["seen"].startswith("ann@desk since") and "did not end within 1 s" in fault["seen"]


@pytest.mark.parametrize("end", ["stdin", "kill"])
def test_the_next_host_gets_the_lease_however_the_holder_ends(host, end):
    first = host("ann@desk")
    assert "held" in first.reply()
    second = host("bob@laptop")
    assert "waiting" in second.reply()
    first.process.stdin.close() if end == "stdin" else first.process.kill()
    assert second.reply() == {"held": True}
    assert "bob@laptop" in host("eve@lab", wait_s=0.0).reply()["seen"]


def test_a_holder_whose_host_is_silent_releases_the_lease(host):
    first = host("ann@desk", silent_s=0.5)
    assert "held" in first.reply()
    assert first.process.wait(120) == 0
    assert host("bob@laptop", wait_s=0.0).reply() == {"held": True}


def send_heartbeats(to: Host, for_s: float) -> float:
    """The longest time without one, seconds: on a busy machine that may be longer than was meant."""
    begun = last = time.monotonic()
    longest_s = 0.0
    while last - begun < for_s:
        time.sleep(0.1)
        with contextlib.suppress(BrokenPipeError):
            to.process.stdin.write(b"\n")
            to.process.stdin.flush()
        longest_s, last = max(longest_s, time.monotonic() - last), time.monotonic()
    return longest_s


def test_a_host_that_sends_heartbeats_keeps_the_lease(host):
    for _ in range(20):  # once is enough, unless this machine kept the host itself waiting
        one = host("ann@desk", silent_s=1.0)
        assert "held" in one.reply()
        longest_s, held = send_heartbeats(one, 2.0), one.process.poll() is None
        one.process.kill()
        one.process.wait()
        if longest_s < 0.8:
            break
    assert held, "2 s, silent for less than 0.8 s of them"


@pytest.fixture
def make_lease(tmp_path):
    """make_lease(wait_s, command): the host's end of a lease of one workdir; all are released."""
    made = []

    def make(wait_s: float = 0.0, command=COMMAND) -> Lease:
        made.append(Lease(command, "board", str(tmp_path), wait_s, lambda code, stderr: Fault("no_python", f"{code} {stderr.strip()}")))
        return made[-1]

    yield make
    for one in made:
        one.release()


def test_the_hosts_end_takes_it_again_after_its_link_was_lost(make_lease):
    one, other = make_lease(), make_lease()
    one.ensure()
    with pytest.raises(Fault, match=r"^board: \w+@\S+ since \d\d:\d\d:\d\d measures on it.*wait for it to end$") as caught:
        other.ensure()
    assert caught.value.word == "busy"
    assert one.process is not None
    one.process.kill()
    one.process.wait()
    one.ensure()
    assert one.process.poll() is None
    one.release()
    other.ensure()


def test_a_program_that_does_not_start_is_explained(make_lease):
    with pytest.raises(Fault, match=r"^127 no such python; install python") as caught:
        make_lease(command=("sh", "-c", "echo no such python >&2; exit 127")).ensure()
    assert caught.value.word == "no_python"


def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(host, tmp_path):
    (tmp_path / "device").mkdir()
    (tmp_path / "precious").write_text("data")
    (tmp_path / "device/lock").symlink_to(tmp_path / "precious")
    assert "lock: a symbolic link; remove it" in host("ann@desk").reply()["seen"]
    assert (tmp_path / "precious").read_text() == "data"


@pytest.mark.parametrize("module", [lease, cache])
def test_a_workdir_of_another_user_is_refused(module, tmp_path, monkeypatch):
    module.make_private_folder(tmp_path / "mine")
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o700
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(OSError, match=f"belongs to user {owner}; name another folder in device.workdir"):
        module.make_private_folder(tmp_path / "mine")


@pytest.mark.parametrize("module", [lease, cache])
def test_a_workdir_in_which_anybody_may_write_is_refused(module, tmp_path):
    tmp_path.chmod(0o1777)
    with pytest.raises(OSError, match="any user may write in it"):
        module.make_private_folder(tmp_path)


def test_a_reply_that_breaks_off_is_explained(make_lease):
    code = f"printf '\\n{lease.MARK}{{\"hel'; exit 255"
    with pytest.raises(Fault, match=r"^255 "):
        make_lease(command=("sh", "-c", code)).ensure()


def test_a_program_that_is_not_there_is_a_fault(make_lease):
    with pytest.raises(Fault, match="no-such-program cannot be started: No such file"):
        make_lease(command=("no-such-program",)).ensure()


@pytest.mark.parametrize(
    "reply", ["[]", "{}", '{"fault": "no such word", "seen": "x"}', '{"fault": "busy"}', '{"fault": ["busy"], "seen": 1}']
)
def test_a_reply_that_is_none_is_a_fault_of_the_protocol(make_lease, reply):
    """What a device says is not trusted."""
    code = f"echo '{lease.MARK}{reply}'; exit 255"
    with pytest.raises(Fault) as caught:
        make_lease(command=("sh", "-c", code)).ensure()
    assert caught.value.word == ("no_python" if reply == "[]" else "protocol")
