"""A private sshd for each test that asks for one: own host key, own port, own users' keys; nothing of the machine's own ssh is touched."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
FOREGROUND = ("-D", "-e")


@dataclass
class Sshd:
    """Where it listens, and what a client needs. `folder` holds its files; `workdir` is the device's cache."""

    folder: Path
    host: str = "127.0.0.1"
    prefix: Sequence[str] = ()  # a command that starts sshd elsewhere: in a network namespace, in a control group
    options: Sequence[str] = ()
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen | None = None

    @property
    def workdir(self) -> Path:
        return self.folder / "device"

    def start(self) -> "Sshd":
        for name in ("host", "user"):
            keygen(self.folder / name)
        (self.folder / "authorized").write_bytes((self.folder / "user.pub").read_bytes())
        self.know(self.folder / "host.pub")
        lines = [f"Port {self.port}", f"ListenAddress {self.host}", f"HostKey {self.folder / 'host'}", "PidFile none", "StrictModes no"]
        lines += [f"AuthorizedKeysFile {self.folder / 'authorized'}", "UsePAM no", "PasswordAuthentication no", *self.options]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [*self.prefix, SSHD, *FOREGROUND, "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + 20
        while "listening on" not in (self.folder / "sshd.log").read_text():
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "sshd.log").read_text()
            time.sleep(0.05)
        return self

    def know(self, public_key: Path | None) -> None:
        """Write known_hosts: this key for the device, or none at all."""
        line = f"[{self.host}]:{self.port} {public_key.read_text()}" if public_key else ""
        (self.folder / "known").write_text(line)
        client = f"UserKnownHostsFile {self.folder / 'known'}\nGlobalKnownHostsFile /dev/null\nIdentitiesOnly yes\nIdentityAgent none\n"
        (self.folder / "ssh_config").write_text(client)

    def device(self, **more: Any) -> dict[str, Any]:
        """The device section of params.yaml, without its name."""
        place = {"host": self.host, "port": self.port, "key": str(self.folder / "user"), "config": str(self.folder / "ssh_config")}
        return {**place, "python": sys.executable, "workdir": str(self.workdir), "connect_s": 5.0, **more}

    def stop(self) -> None:
        """Also the processes of connections whose other end is gone."""
        if self.process and self.process.poll() is None:
            connections = children(self.process.pid)
            self.process.terminate()
            self.process.wait(10)
            for pid in connections:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def running(self) -> list[str]:
        """Command lines of processes that work in this device's folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink().is_relative_to(self.workdir):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def nothing_runs(self, within_s: float = 5.0) -> bool:
        end = time.monotonic() + within_s
        while self.running() and time.monotonic() < end:
            time.sleep(0.1)
        return not self.running()


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start_sshd(tmp_path: Path) -> Iterator[Any]:
    """start_sshd(options=[...]) gives a running Sshd; all are stopped in the end, and must have left nothing running."""
    if not SSHD:
        pytest.skip("sshd is not installed; tests/system/install.sh installs it as root")
    started: list[Sshd] = []

    def start(**fields: Any) -> Sshd:
        folder = tmp_path / f"sshd{len(started)}"
        folder.mkdir()
        started.append(Sshd(folder, **fields))
        return started[-1].start()

    yield start
    left = [line for sshd in started if not sshd.nothing_runs() for line in sshd.running()]
    for sshd in started:
        sshd.stop()
    assert not left


@pytest.fixture
def sshd(start_sshd) -> Sshd:
    return start_sshd()


@pytest.fixture
def root() -> None:
    if os.getuid() != 0:
        pytest.skip("needs root (a network namespace, a mount or a control group of its own)")
