"""Connect to a device and keep it for one measurement at a time.

Two things keep others out. `lock`, a file lock on this machine, holds back other processes, clones and sweeps of the same user. `Lease`,
the host's end of agent.lease, holds back other hosts; a connection takes it in `reserve` (plugins.Connection). The kernel releases both
when their holder ends, however it ends, so neither can be stale.
"""

import contextlib
import fcntl
import getpass
import hashlib
import json
import os
import platform
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from edgewise.agent import lease
from edgewise.agent.protocol import FAULTS, STRING, Fault, find_wrong_field
from edgewise.config.schema import Plugin
from edgewise.config.settings import build
from edgewise.devices import channel
from edgewise.errors import DeviceError, StorageError
from edgewise.plugins import Connection

HEARTBEAT_S, SILENT_S = 10.0, 60.0  # a heartbeat costs the device far less than a millisecond; a link that stalls for a while is not lost
# Settings that say how a device is used, not which one it is.
USAGE_SETTINGS = (
    *("threads", "cool_down_degc", "cool_down_max_s"),
    *("user", "key", "config", "python", "workdir", "cache_mb", "connect_s", "run_max_s", "busy_max_s"),
)
ADVICE = "remove it, or name a folder of your own in XDG_RUNTIME_DIR"


@contextlib.contextmanager
def connect(device: Plugin) -> Iterator[Connection]:
    """A connection to the configured device for the block, in which a Fault becomes a DeviceError."""
    module = device.load()
    try:
        with module.connect(build(module.Settings, device.settings, "device")) as connection:
            yield cast(Connection, connection)
    except Fault as fault:
        raise DeviceError(fault.word, str(fault)) from fault


@contextlib.contextmanager
def lock(device: Plugin) -> Iterator[None]:
    """Wait until no other process of this user measures on the device, then lock it for the block. StorageError for an unsafe lock file."""
    path = lock_file(device)
    with os.fdopen(open_lock_file(path), "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another process measures on the device '{device.name}' ({path})", file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def lock_file(device: Plugin) -> Path:
    """The lock file of a device, named after its transport and the settings that identify it."""
    place = {key: value for key, value in device.settings.items() if key not in USAGE_SETTINGS}
    digest = hashlib.sha256(json.dumps([device.module, place], sort_keys=True, default=str).encode()).hexdigest()
    return lock_folder() / f"device-{device.name}-{digest[:12]}.lock"


def lock_folder() -> Path:
    """The folder of this user's lock files: in XDG_RUNTIME_DIR, or else in the folder for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "edgewise") if runtime else Path(tempfile.gettempdir(), f"edgewise-{os.getuid()}")


def open_lock_file(path: Path) -> int:
    """Open the lock file, creating it if it is missing; returns its descriptor. Any user can write into the folder for temporary files, so
    neither the lock folder nor the file may be a link, and only this user may write into the lock folder. StorageError otherwise."""
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        place = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            check_lock_folder(path.parent, os.fstat(place))
            return os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place)
        finally:
            os.close(place)
    except OSError as error:
        raise StorageError(f"the lock {path} cannot be opened: {error.strerror}; {ADVICE}") from error


def check_lock_folder(folder: Path, found: os.stat_result) -> None:
    """StorageError if another user owns the folder, or any user may write into it."""
    if found.st_uid != os.geteuid():
        raise StorageError(f"the lock folder {folder} belongs to user {found.st_uid}, not to user {os.geteuid()}; {ADVICE}")
    if found.st_mode & stat.S_IWOTH:
        raise StorageError(f"any user may write into the lock folder {folder}; run: chmod 700 {folder}")


def find_user() -> str:
    """The name of this user; its number where it has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # before Python 3.13 and since
        return f"uid-{os.getuid()}"


class Lease:
    """A lease of a device, kept while this process lives. Call `ensure` before each use: the process on the device ends with its link.

    command: starts agent.lease on the device. explain(exit code, stderr): the fault of a process that ended without a reply.
    """

    def __init__(self, command: Sequence[str], host: str, workdir: str, wait_s: float, explain: Callable[[int, str], Fault]):
        self.command, self.host, self.explain = command, host, explain
        self.request = {"workdir": workdir, "who": f"{find_user()}@{platform.node()}", "wait_s": wait_s, "silent_s": SILENT_S}
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = threading.Event()

    def ensure(self) -> None:
        """Take the lease again if it was lost. Fault `busy` if another host does not finish in time, else what `explain` returns."""
        if self.process and self.process.poll() is None:
            return
        self.release()
        self.process, self.ended = channel.start_process(self.command), threading.Event()
        write_line(self.process, json.dumps(self.request))
        threading.Thread(target=send_heartbeats, args=(self.process, self.ended), daemon=True).start()
        while "held" not in (reply := self._reply(self.process)):
            check_reply(reply, self.host, {"waiting": STRING})
            print(f"waiting: {reply['waiting']} measures on {self.host}", file=sys.stderr, flush=True)

    def release(self) -> None:
        self.ended.set()
        if self.process:
            self.process.kill()
            self.process.communicate()
        self.process = None

    def _reply(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The next reply; what a login shell prints is skipped."""
        assert process.stdout
        for line in process.stdout:
            reply = parse_reply(line, lease.MARK)
            if reply is not None:
                return reply
        _, stderr = process.communicate()
        raise self.explain(process.returncode, stderr.decode(errors="replace"))


def parse_reply(line: bytes, mark: str) -> dict[str, Any] | None:
    """The JSON object of a line that begins with `mark`; None for any other line and for one that a lost link has cut."""
    text = line.decode(errors="replace").strip()
    with contextlib.suppress(ValueError):
        reply = json.loads(text[len(mark) :]) if text.startswith(mark) else None
        return reply if isinstance(reply, dict) else None
    return None


def check_reply(reply: dict[str, Any], host: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the reply if it has `fields` (name -> kind, see protocol.CHECKS). Raises the Fault that it reports, or else `protocol`."""
    word, seen = reply.get("fault"), reply.get("seen")
    if isinstance(word, str) and word in FAULTS and isinstance(seen, str):
        raise Fault(word, f"{host}: {seen}")
    wrong = find_wrong_field(reply, fields)
    if wrong:
        raise Fault("protocol", f"{host}: the device replied {str(reply)[:80]}: {wrong}")
    return reply


def send_heartbeats(process: subprocess.Popen[bytes], ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        write_line(process, "")


def write_line(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin
    with contextlib.suppress(OSError, ValueError):  # it has ended; `ensure` notices
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()
