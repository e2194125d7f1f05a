"""Agents that misbehave: always one named error, never a hang beyond the limit, never a process left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgewise.agent.protocol import Fault, encode_event
from edgewise.devices import channel
from edgewise.devices.local import LocalDevice

pytestmark = pytest.mark.lengthy  # agents that run, and waits for them

HELLO = encode_event(0, "hello", {"schema": 1, "python": "3", "versions": {}, "modules": [], "cpus": [0]})
DONE = encode_event(1, "done", {})
PROBE = {"kind": "probe", "packages": []}
HANG_S = 600
SLEEP = f"time.sleep({HANG_S})"


def converse(code: str, deadline_s: float = 120.0) -> list[dict]:
    prelude = f"import os, signal, subprocess, sys, time\nHELLO, DONE = {HELLO!r}, {DONE!r}\nwrite = lambda b: os.write(1, b)\n"
    return list(channel.run_agent([sys.executable, "-S", "-c", prelude + code], PROBE, deadline_s))


@pytest.mark.parametrize(
    ("code", "word", "message"),
    [
        ("", "agent_error", "exit code 0 .*printed nothing"),
        ("sys.exit('no module named numpy')", "agent_error", "exit code 1 .no module named numpy"),
        ("write(b'Last login: Monday\\n')", "protocol", "no hello"),
        ("write(HELLO)", "agent_error", "exit code 0"),
        ("write(HELLO); write(DONE[:-5])", "protocol", "truncated"),
        ("write(HELLO + b'garbage\\n')", "protocol", "not json"),
        ("write(HELLO + DONE + DONE)", "protocol", "after end"),
        ("write(HELLO + DONE); time.sleep(0.2); write(DONE)", "protocol", "after end"),
        ("write(HELLO)\nfor _ in range(70): write(b'x' * (1 << 20))", "protocol", "too long"),
        ("write(HELLO); os.kill(os.getpid(), signal.SIGSEGV)", "model_aborted", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "agent_error", "SIGSEGV"),
        ("write(HELLO); os.kill(os.getpid(), signal.SIGTERM)", "killed", "SIGTERM"),
        ("write(HELLO); sys.stderr.write('std::bad_alloc'); sys.stderr.flush(); os.abort()", "out_of_memory", "bad_alloc"),
    ],
)
def test_misbehaviour_has_a_name(code, word, message):
    with pytest.raises(Fault, match=message) as caught:
        converse(code)
    assert caught.value.word == word and "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [SLEEP, f"write(HELLO); {SLEEP}", "while True: write(b'noise ')", f"os.close(1); {SLEEP}"])
def test_a_hang_ends_at_the_limit(code, monkeypatch):
    monkeypatch.setattr(channel, "GRACE_S", 0.3)
    start = time.monotonic()
    with pytest.raises(Fault) as caught:
        converse(code, deadline_s=0.7)
    assert time.monotonic() - start < HANG_S / 10
    assert caught.value.word == "deadline" or "too long" in str(caught.value)


def test_helpers_of_the_agent_do_not_survive_it(tmp_path: Path):
    note = tmp_path / "pid"
    sleeper = "p = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])"
    child = f"{sleeper}; open({str(note)!r}, 'w').write(str(p.pid))\n"
    assert [e["event"] for e in converse(child + "write(HELLO + DONE)")] == ["hello", "done"]
    helper = int(note.read_text())
    for _ in range(600):
        if not lives(helper):
            return
        time.sleep(0.05)
    os.kill(helper, signal.SIGKILL)
    pytest.fail("a helper process outlived the run")


def lives(process: int) -> bool:
    """Whether a process runs; not one that has ended and was not reaped yet."""
    try:
        return "Z (" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_consumer_that_stops_early_leaves_nothing(tmp_path: Path):
    events = channel.run_agent([sys.executable, "-S", "-c", f"import os, time; os.write(1, {HELLO!r}); time.sleep({HANG_S})"], PROBE, 120.0)
    next(events)
    start = time.monotonic()
    events.close()
    assert time.monotonic() - start < HANG_S / 10


def test_a_kill_is_for_memory_only_with_the_kernels_word(monkeypatch):
    from edgewise.devices import local

    kill = LocalDevice((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(Fault) as caught:
        list(kill.run(PROBE, 120))
    assert caught.value.word == "killed"
    counts = iter((3, 4, 4))
    monkeypatch.setattr(local, "count_oom_kills", lambda: next(counts))
    with pytest.raises(Fault, match="counts 1 kill") as caught:
        list(kill.run(PROBE, 120))
    assert caught.value.word == "oom_killed"


LONG = {"kind": "probe", "packages": ["x" * 300_000]}  # more than a pipe holds


def talk(code: str, deadline_s: float = 120.0) -> list[dict]:
    prelude = f"import os, sys, time\nHELLO, DONE = {HELLO!r}, {DONE!r}\nwrite = lambda b: os.write(1, b)\n"
    return list(channel.run_agent([sys.executable, "-S", "-c", prelude + code], LONG, deadline_s))


class Over(subprocess.Popen):
    """A process that has ended when its starter goes on."""

    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        self.wait()


@pytest.mark.parametrize("job", [PROBE, LONG], ids=["short", "long"])
def test_an_agent_that_ends_before_its_job_is_written_is_a_fault(job, monkeypatch):
    monkeypatch.setattr(channel.subprocess, "Popen", Over)
    with pytest.raises(Fault, match=r"exit code 1 .no module named numpy") as caught:
        list(channel.run_agent([sys.executable, "-S", "-c", "import sys; sys.exit('no module named numpy')"], job, 120.0))
    assert caught.value.word == "agent_error"


def test_an_agent_that_never_reads_its_job_ends_at_the_limit(monkeypatch):
    monkeypatch.setattr(channel, "GRACE_S", 0.3)
    start = time.monotonic()
    with pytest.raises(Fault) as caught:
        talk(SLEEP, deadline_s=0.7)
    assert caught.value.word == "deadline" and time.monotonic() - start < HANG_S / 10


def test_a_long_job_arrives_whole():
    code = "job = sys.stdin.buffer.readline(); assert len(job) > 300_000 and job.endswith(b'}\\n'); write(HELLO + DONE)"
    assert [event["event"] for event in talk(code)] == ["hello", "done"]


def test_a_program_that_cannot_be_started_is_a_fault(tmp_path: Path):
    (tmp_path / "qemu").write_bytes(b"\0")
    (tmp_path / "qemu").chmod(0o755)
    for name, seen in (("absent", "No such file"), ("qemu", "Exec format error")):
        with pytest.raises(Fault, match=f"{name} cannot be started: {seen}") as caught:
            list(channel.run_agent([str(tmp_path / name)], PROBE, 5.0))
        assert caught.value.word == "agent_error"
