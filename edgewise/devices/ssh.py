"""A device that is reached over SSH. It needs a login, Python 3.9 or newer and the runtime's wheel, nothing of Edgewise.

Files are sent once, by content, into a cache on the device (agent.cache). Each run of the agent is a fresh process there, inside a
shell that reports how it ended: ssh's own exit code does not tell a lost link from a killed program.

The connection is one of OpenSSH's own client, shared by all calls. The user's ssh config, jump hosts, agents and hardware keys work as in a
terminal. The client never asks for a password or a host key.
"""

import base64
import contextlib
import json
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any, TypeVar

from edgewise.agent import cache, lease
from edgewise.agent.protocol import BOOLEAN, COUNT, STRING, Fault
from edgewise.config.settings import option
from edgewise.devices import channel, shipping
from edgewise.devices.access import Lease, check_reply, parse_reply

T = TypeVar("T")
EMULATED = False
RETRY_WAITS_S = (1.0, 4.0)  # before the second and the third attempt, seconds
RETRIED = ("unreachable", "dropped")  # faults that another attempt may not meet
CACHE_CALL_S, SLOWEST_BYTES_PER_S = 60.0, 50_000
NO_PROGRAM = (126, 127)  # a shell's exit codes: cannot be executed, not found
TOO_OLD = "edgewise: python "
REPLIES = {  # of agent.cache, by request: name -> kind, see protocol.CHECKS
    "find": {"home": STRING, "path": STRING, "complete": BOOLEAN},
    "receive": {"path": STRING},
    "kill": {"killed": COUNT},
}
BOOTSTRAP = (
    f"""import sys,base64;sys.version_info<(3,9) and sys.exit("{TOO_OLD}"+sys.version.split()[0]);exec(base64.b64decode("%s").decode())"""
)
# $0: the run's name, by which it can be found on the device; $1: folder of the code; $2: python. The bare echo ends a line that a
# login shell may have begun; the last command kills whatever a runtime has started, and this shell.
REMOTE_WRAPPER = "; ".join(
    (
        'cd "$1" || exit 1',
        'kills() { sed -n "s/^oom_kill //p" /proc/vmstat; }',
        "before=$(kills); echo",
        'PYTHONPATH="$1${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 "$2" -m edgewise.agent.program',
        'echo "$0 ended $? ${before:-0} $(kills)" >&2',
        "kill -KILL 0",
    )
)
FAILED = 255  # ssh's own exit code: no connection, a lost one, or a command ended by a signal
KEEPALIVE = ("-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=3")  # a lost link is noticed after six seconds
NEVER_ASK = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes")
POLL_S = 0.02
END_S = 2.0  # when the shared connection is lost, a call ends at most so long before it

# (pattern in the stderr of ssh, word of FAULTS, meaning); the first that matches holds.
STDERR_PATTERNS = (
    (r"HOST IDENTIFICATION HAS CHANGED", "host_key", "the host key has changed since it was noted"),
    (r"Host key verification failed|No \S+ host key is known", "host_key", "the host key is not known here"),
    (r"Could not resolve hostname", "unknown_host", "no address for this name"),
    (r"Permission denied|Too many authentication failures", "auth", "the device refuses this user or key"),
    (
        r"refused|timed out|No route to host|[Uu]nreachable|reset by|closed by|banner exchange|Host is down|broken pipe|not responding",
        "unreachable",
        "no answer",
    ),
)


@dataclass(frozen=True)
class SshAddress:
    host: str = option(help="name or address of the device, or a Host of your ssh config")
    user: str | None = option(None, "null: as ssh decides")
    port: int | None = option(None, "null: as ssh decides", low=1, high=65535)
    key: str | None = option(None, "file of a private key; null: as ssh decides")
    config: str | None = option(None, "an ssh config instead of your own")
    connect_s: float = option(10.0, "how long to wait for a connection", low=1.0, high=600.0)


class SshConnection:
    """Opened when it is needed. folder: a private one with a short path, for the shared socket."""

    def __init__(self, address: SshAddress, folder: Path):
        self.address, self.socket, self.log = address, folder / "s", folder / "log"
        self.master: subprocess.Popen[bytes] | None = None

    def command(self, remote: str) -> list[str]:
        """The local command that runs `remote` on the device through the shared connection."""
        return [*self._client(), "-o", "ControlMaster=no", "--", self.address.host, remote]

    def ensure(self) -> None:
        """Open the shared connection unless it is open. Fault if it cannot be opened.

        The remote command reads a pipe from this process: however this process ends, the connection ends with it.
        """
        if self.master and self.master.poll() is None:
            return
        self.close()
        command = [*self._client(), "-o", "ControlMaster=yes", "--", self.address.host, "cat > /dev/null"]
        with self.log.open("wb") as log:
            self.master = _start(command, log)
        end = time.monotonic() + 2 * self.address.connect_s  # one to connect, one to authenticate
        while not self.socket.exists():
            if self.master.poll() is not None or time.monotonic() > end:
                raise self._explain_failure()
            time.sleep(POLL_S)

    def is_lost(self) -> bool:
        """Whether the shared connection has ended or ends within END_S."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.master is None or self.master.wait(END_S) is not None
        return False

    def call(self, remote: str, content: bytes, limit_s: float) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the device with `content` as its stdin. Fault `deadline` after limit_s seconds."""
        try:
            return subprocess.run(self.command(remote), input=content, capture_output=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise Fault("deadline", f"{self.address.host} did not answer within {limit_s:.0f} s") from None

    def close(self) -> None:
        if self.master:
            self.master.kill()
            assert self.master.stdin
            self.master.stdin.close()
            self.master.wait()
        self.master = None
        self.socket.unlink(missing_ok=True)

    def _client(self) -> list[str]:
        given = {"-F": self.address.config, "-l": self.address.user, "-p": self.address.port, "-i": self.address.key}
        options = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
        timeout = f"ConnectTimeout={max(1, round(self.address.connect_s))}"
        return ["ssh", *options, *NEVER_ASK, *KEEPALIVE, "-o", timeout, "-o", f"ControlPath={self.socket}"]

    def _explain_failure(self) -> Fault:
        assert self.master
        self.master.kill()
        self.master.wait()
        printed = self.log.read_text(errors="replace")
        return explain_refusal(printed or f"nothing within {2 * self.address.connect_s:g} s, connection timed out", self.address.host)


def _start(command: list[str], log: IO[bytes] | int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
    except FileNotFoundError:
        raise Fault("ssh_error", "there is no ssh client on this machine (Debian: apt-get install openssh-client)") from None


def explain_refusal(stderr: str, host: str) -> Fault:
    """The fault behind what ssh printed when it could not connect."""
    told = (line.strip().removeprefix("ssh: ") for line in stderr.splitlines() if line.strip() and not line.startswith("@"))
    last = " | ".join(told)[-300:]
    for pattern, word, meaning in STDERR_PATTERNS:
        if re.search(pattern, stderr):
            return Fault(word, f"{host}: {meaning} (ssh: {last})")
    return Fault("ssh_error", f"{host}: {last}")


@dataclass(frozen=True)
class Settings(SshAddress):
    python: str = option("python3", "python on the device, 3.9 or newer, with the runtimes; relative to the home folder")
    workdir: str = option(".cache/edgewise", "folder on the device for what is sent there; relative to the home folder")
    busy_max_s: float = option(600.0, "how long to wait while another host measures on the device, seconds", low=0.0)
    cache_mb: int = option(2048, "limit of that folder, MB (2^20 bytes)", low=1)
    run_max_s: float | None = option(None, "time limit of one run, seconds; null: what the bench profile needs", low=1.0)
    threads: int = option(1, "threads that a runtime may use", low=1, high=1024)
    cool_down_degc: float | None = option(
        None, "let the device cool down to this temperature before each run, if it has a sensor", low=20.0, high=110.0
    )
    cool_down_max_s: float = option(300.0, "time limit of that wait, seconds", low=0.0)


@contextlib.contextmanager
def connect(settings: Settings) -> Iterator["SshDevice"]:
    with tempfile.TemporaryDirectory(prefix="ew-", dir="/tmp") as folder:  # the path of a socket has at most 107 bytes
        link = SshConnection(settings, Path(folder))
        try:
            yield SshDevice(settings, link)
        finally:
            link.close()


class SshDevice:
    def __init__(self, settings: Settings, link: SshConnection):
        self.settings, self.link = settings, link
        self.placed: dict[str, str] = {}  # key of a tree -> path on the device
        self.lost: list[str] = []  # runs that may still be going on there
        self.python = settings.python
        self.lease: Lease | None = None

    @contextlib.contextmanager
    def reserve(self) -> Iterator[None]:
        command = self.link.command(shlex.join([strip_home(self.settings.python), "-c", make_program(lease)]))
        settings = self.settings
        self.lease = Lease(command, settings.host, settings.workdir, settings.busy_max_s, partial(explain_cache, settings=settings))
        try:
            self._retry(lambda: None)
            yield
        finally:
            self.lease.release()
            self.lease = None

    def place(self, folder: Path) -> str:
        return self._retry(lambda: self._place(shipping.read_folder(folder)))

    def run(self, job: Mapping[str, Any], deadline_s: float) -> list[dict[str, Any]]:
        """All events of the attempt that was completed; each attempt starts from the beginning."""
        limit_s = min(deadline_s, self.settings.run_max_s or deadline_s)
        return self._retry(lambda: self._run(job, limit_s))

    def _retry(self, act: Callable[[], T]) -> T:
        for wait_s in (*RETRY_WAITS_S, None):
            try:
                self.link.ensure()
                self._kill_lost()
                if self.lease:
                    self.lease.ensure()
                return act()
            except Fault as fault:
                if fault.word not in RETRIED or wait_s is None:
                    raise
                print(f"{self.settings.host}: {fault}; trying again in {wait_s:g} s", file=sys.stderr, flush=True)
            self.link.close()
            time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _run(self, job: Mapping[str, Any], limit_s: float) -> list[dict[str, Any]]:
        code, run = self._place(shipping.code_tree(*shipping.find_runners(job))), f"edgewise-{uuid.uuid4().hex[:12]}"
        remote = shlex.join(["exec", "sh", "-c", REMOTE_WRAPPER, run, code, self.python])

        def explain(ending: channel.ProcessEnd) -> Fault:
            fault = explain_end(ending, run, self.link)
            if fault.word in ("dropped", "deadline"):
                self.lost.append(run)
            return fault

        return list(channel.run_agent(self.link.command(remote), job, limit_s, explain))

    def _kill_lost(self) -> None:
        if self.lost:
            self._ask({"act": "kill", "runs": self.lost})
            self.lost = []

    def _place(self, tree: shipping.FileTree) -> str:
        if tree.key not in self.placed:
            request = {"key": tree.key, "files": tree.checksums, "workdir": self.settings.workdir}
            found = self._ask({"act": "find", **request})
            if "/" in self.settings.python:
                self.python = str(Path(found["home"], strip_home(self.settings.python)))
            if not found["complete"]:
                limits = {"limit_bytes": self.settings.cache_mb << 20, "keep": list(self.placed)}
                self._ask({"act": "receive", **request, **limits}, tree.content())
            self.placed[tree.key] = found["path"]
        return self.placed[tree.key]

    def _ask(self, request: Mapping[str, Any], content: bytes = b"") -> dict[str, Any]:
        """Call agent.cache on the device and return its reply."""
        remote = shlex.join([strip_home(self.settings.python), "-c", make_program(cache)])
        limit_s = CACHE_CALL_S + len(content) / SLOWEST_BYTES_PER_S
        done = self.link.call(remote, json.dumps(request).encode() + b"\n" + content, limit_s)
        replies = [reply for line in done.stdout.splitlines() if (reply := parse_reply(line, cache.MARK)) is not None]
        if not replies:
            raise explain_cache(done.returncode, done.stderr.decode(errors="replace"), self.settings)
        return check_reply(replies[-1], self.settings.host, REPLIES[request["act"]])


def make_program(module: ModuleType) -> str:
    """The text of a program for `python -c` that is one file of the agent."""
    return BOOTSTRAP % base64.b64encode(Path(str(module.__file__)).read_bytes()).decode()


def strip_home(path: str) -> str:
    return path.removeprefix("~/")


def say_where(settings: Settings) -> str:
    """device.python as it was tried: a relative path starts where a login does."""
    path = strip_home(settings.python)
    if path.startswith("/"):
        return f"'{path}'"
    login = f"{settings.user}@{settings.host}" if settings.user else settings.host
    return f"'{path}' in the folder that `ssh {login} pwd` prints" if "/" in path else f"'{path}', looked up in PATH,"


def explain_end(ending: channel.ProcessEnd, run: str, link: SshConnection) -> Fault:
    """Why a run of the agent ended: from the last line of REMOTE_WRAPPER, or from its absence."""
    report = re.search(rf"^{run} ended (\d+) (\d+) (\d*)$", ending.stderr, re.MULTILINE)
    if report:
        code, before, after = (int(number or 0) for number in report.groups())
        ended = replace(
            ending, code=128 - code if code - 128 in signal.valid_signals() else code, stderr=ending.stderr.replace(report.group(), "")
        )
        if ended.code == -signal.SIGKILL and after > before:
            return Fault("oom_killed", f"the run ended with SIGKILL and the device's kernel counts {after - before} kill for memory")
        return channel.explain_end(ended)
    if ending.code == FAILED and ending.elapsed_s < ending.deadline_s:
        seen = f"after {ending.elapsed_s:.0f} s ({ending.last_words})"
        return Fault("dropped", f"the link ended {seen}") if link.is_lost() else Fault("killed", f"the shell of the run ended {seen}")
    return channel.explain_end(ending)


def explain_cache(code: int, stderr: str, settings: Settings) -> Fault:
    """Why a call of agent.cache or agent.lease ended without a reply."""
    last = " | ".join(line.strip() for line in stderr.splitlines()[-3:]) or "it printed nothing"
    if TOO_OLD in stderr:
        return Fault("python_too_old", f"{settings.host}: '{settings.python}' is {last.rpartition('edgewise: ')[2]}")
    if code in NO_PROGRAM:
        return Fault("no_python", f"{settings.host}: {say_where(settings)} cannot be started ({last})")
    if code == FAILED:
        fault = explain_refusal(stderr, settings.host)
        return Fault("dropped", f"{settings.host}: the link ended ({last})") if fault.word in ("unreachable", "ssh_error") else fault
    return Fault("agent_error", f"{settings.host}: '{settings.python}' ended with exit code {code} ({last})")
