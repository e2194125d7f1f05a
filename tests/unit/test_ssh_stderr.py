"""What ssh says and what it means, without a network; tests/system provokes each for real."""

import getpass
import json
import os
import signal
import subprocess

import pytest

from edgewise.agent import cache
from edgewise.agent.protocol import Fault
from edgewise.devices import shipping, ssh
from edgewise.devices.access import Lease
from edgewise.devices.channel import ProcessEnd
from edgewise.devices.ssh import SshConnection, explain_cache, explain_end, explain_refusal

CHANGED = "@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@\nHost key verification failed.\n"


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("No ED25519 host key is known for pi and you have requested strict checking.\nHost key verification failed.\n", "host_key"),
        (CHANGED, "host_key"),
        ("pi@pi: Permission denied (publickey,password).\n", "auth"),
        ("Received disconnect from 10.0.0.2 port 22:2: Too many authentication failures\n", "auth"),
        ("ssh: Could not resolve hostname pi: Name or service not known\n", "unknown_host"),
        ("ssh: connect to host pi port 22: Connection refused\n", "unreachable"),
        ("ssh: connect to host pi port 22: Connection timed out\n", "unreachable"),
        ("ssh: connect to host pi port 22: No route to host\n", "unreachable"),
        ("kex_exchange_identification: Connection closed by remote host\n", "unreachable"),
        ("/home/me/.ssh/config: line 3: Bad configuration option: hots\n", "ssh_error"),
    ],
)
def test_each_saying_has_its_word(said, word):
    fault = explain_refusal(said, "pi")
    assert fault.word == word and "\n" not in str(fault) and str(fault).startswith("pi: ")
    assert "ssh: ssh: " not in str(fault)


@pytest.mark.parametrize(
    ("python", "tried"),
    [
        ("~/venv/bin/python", "pi: 'venv/bin/python' in the folder that `ssh me@pi pwd` prints cannot be started"),
        ("/opt/python", "pi: '/opt/python' cannot be started"),
        ("python3", "pi: 'python3', looked up in PATH, cannot be started"),
    ],
)
def test_a_python_that_cannot_be_started_is_named_with_its_folder(python, tried):
    fault = explain_cache(127, "sh: 1: not found\n", ssh.Settings(host="pi", user="me", python=python))
    assert fault.word == "no_python" and str(fault).startswith(tried) and str(fault).count("not found") == 1


class FakeLink:
    def __init__(self, lost: bool):
        self.lost = lost

    def is_lost(self) -> bool:
        return self.lost


@pytest.mark.parametrize(
    ("code", "stderr", "lost", "word"),
    [
        (255, "edgewise-1 ended 137 3 4\n", False, "oom_killed"),
        (255, "edgewise-1 ended 137 3 3\n", False, "killed"),
        (255, "edgewise-1 ended 143 3 4\n", False, "killed"),
        (255, "edgewise-1 ended 137 0 \n", False, "killed"),
        (255, f"edgewise-1 ended {128 + signal.SIGABRT} 0 0\n", False, "model_aborted"),
        (255, "std::bad_alloc\nedgewise-1 ended 134 0 0\n", False, "out_of_memory"),
        (255, "edgewise-1 ended 1 0 0\n", True, "agent_error"),
        (255, "edgewise-1 ended 255 0 0\n", False, "agent_error"),
        (255, "edgewise-2 ended 137 3 4\nclient_loop: send disconnect: Broken pipe\n", True, "dropped"),
        (255, "", False, "killed"),
        (None, "", False, "deadline"),
    ],
)
def test_how_a_run_ended(code, stderr, lost, word):
    assert explain_end(ProcessEnd(code, stderr, True, 1.0, 9.0), "edgewise-1", FakeLink(lost)).word == word


def test_a_user_without_a_name_still_has_a_lease(monkeypatch):
    """As in a container that runs as a number."""

    def no_name():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", no_name)
    lease = Lease(("true",), "board", "work", 1.0, lambda code, stderr: Fault("no_python", stderr))
    assert lease.request["who"].startswith(f"uid-{os.getuid()}@")


def test_a_reply_of_the_cache_that_breaks_off_is_a_lost_link(tmp_path):
    settings = ssh.Settings(host="board")
    link = SshConnection(settings, tmp_path)
    link.call = lambda *given: subprocess.CompletedProcess((), 255, f'\n{cache.MARK}{{"pa'.encode(), b"Connection closed")
    with pytest.raises(Fault, match="the link ended") as caught:
        ssh.SshDevice(settings, link)._ask({"act": "find"})
    assert caught.value.word == "dropped"


@pytest.mark.parametrize(
    "reply", [{"home": "/", "complete": True}, {"path": 5, "home": "/", "complete": True}, {"fault": "no such word", "seen": "x"}]
)
def test_a_reply_of_the_cache_that_is_none_is_a_fault_of_the_protocol(tmp_path, reply):
    settings = ssh.Settings(host="board")
    link = SshConnection(settings, tmp_path)
    link.call = lambda *given: subprocess.CompletedProcess((), 0, f"{cache.MARK}{json.dumps(reply)}".encode(), b"")
    (tmp_path / "tree").mkdir()
    with pytest.raises(Fault) as caught:
        ssh.SshDevice(settings, link)._place(shipping.read_folder(tmp_path / "tree"))
    assert caught.value.word == "protocol"
