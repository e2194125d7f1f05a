"""A connection to a device by OpenSSH's own client, shared by all calls.

The user's ssh config, jump hosts, agents and hardware keys work as in a terminal. The client never asks for a password or a host key.
"""

import contextlib
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgewise.agent.protocol import Fault
from edgewise.config.settings import option

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
    last = " | ".join(line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("@"))[-300:]
    for pattern, word, meaning in STDERR_PATTERNS:
        if re.search(pattern, stderr):
            return Fault(word, f"{host}: {meaning} (ssh: {last})")
    return Fault("ssh_error", f"{host}: {last}")
