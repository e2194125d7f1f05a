"""The host's end of agent.lease: the device is kept as long as this process lives, and says so now and then."""

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
from edgewise.agent.protocol import FAULTS, Fault, wrong_field
from edgewise.config.schema import Plugin
from edgewise.config.settings import build
from edgewise.devices import channel
from edgewise.errors import DeviceError, StorageError
from edgewise.plugins import Connection

BEAT_S, SILENT_S = 10.0, 60.0  # a beat costs the device far less than a millisecond; a link that stalls for a while is not lost


class Hold:
    """`command` starts agent.lease on the device; `ensure` is called before each use of it, since that process ends with its link.

    explain(exit code, stderr): the fault behind a process that ended without an answer.
    """

    def __init__(self, command: Sequence[str], host: str, workdir: str, wait_s: float, explain: Callable[[int, str], Fault]):
        self.command, self.host, self.explain = command, host, explain
        who = f"{getpass.getuser()}@{platform.node()}"
        self.request = {"workdir": workdir, "who": who, "wait_s": wait_s, "silent_s": SILENT_S}
        self.process: subprocess.Popen | None = None
        self.ended = threading.Event()

    def ensure(self) -> None:
        """Fault `busy` where another host does not end in time, and what `explain` gives."""
        if self.process and self.process.poll() is None:
            return
        self.end()
        self.process, self.ended = channel.start(self.command), threading.Event()
        say(self.process, json.dumps(self.request))
        threading.Thread(target=beat, args=(self.process, self.ended), daemon=True).start()
        while "held" not in (reply := self._reply(self.process)):
            checked(reply, self.host, {"waiting": "text"})
            print(f"waiting: {reply['waiting']} measures on {self.host}", file=sys.stderr, flush=True)

    def end(self) -> None:
        self.ended.set()
        if self.process:
            self.process.kill()
            self.process.communicate()
        self.process = None

    def _reply(self, process: subprocess.Popen) -> dict[str, Any]:
        """The next line after MARK; a login shell's noise is skipped."""
        assert process.stdout
        for line in process.stdout:
            reply = reply_in(line, lease.MARK)
            if reply is not None:
                return reply
        _, stderr = process.communicate()
        raise self.explain(process.returncode, stderr.decode(errors="replace"))


def reply_in(line: bytes, mark: str) -> dict[str, Any] | None:
    """The reply in a line that begins with `mark`; None in any other, and where a lost link has cut it."""
    text = line.decode(errors="replace").strip()
    with contextlib.suppress(ValueError):
        reply = json.loads(text[len(mark) :]) if text.startswith(mark) else None
        return reply if isinstance(reply, dict) else None
    return None


def checked(reply: dict[str, Any], host: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """The reply where it has `fields` (name -> kind, as in protocol.CHECKS). Fault that it tells; `protocol` where it is neither."""
    word, seen = reply.get("fault"), reply.get("seen")
    if isinstance(word, str) and word in FAULTS and isinstance(seen, str):
        raise Fault(word, f"{host}: {seen}")
    wrong = wrong_field(reply, fields)
    if wrong:
        raise Fault("protocol", f"{host}: the device replied {str(reply)[:80]}: {wrong}")
    return reply


def beat(process: subprocess.Popen, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        say(process, "")


def say(process: subprocess.Popen, line: str) -> None:
    assert process.stdin
    with contextlib.suppress(OSError, ValueError):  # it has ended, which `ensure` finds out
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()


# One device measures one thing at a time: a lock for each device, across processes, clones and sweeps of one user on this machine.
# Other hosts are kept out by the connection itself (plugins.Connection.alone).
#
# The kernel lets go of it when its holder ends, however it ends, so there is no such thing as a stale lock.

# Settings that say how a device is used, not which one it is.
SAME_DEVICE = (
    *("threads", "cool_down_degc", "cool_down_max_s"),
    *("user", "key", "config", "python", "workdir", "cache_mb", "connect_s", "run_max_s", "busy_max_s"),
)
ADVICE = "remove it, or name a folder of your own in XDG_RUNTIME_DIR"


def folder() -> Path:
    """Where this user's lock files lie; the session's own folder where there is one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "edgewise") if runtime else Path(tempfile.gettempdir(), f"edgewise-{os.getuid()}")


def file_of(device: Plugin) -> Path:
    """The lock file of a device, which is known by its transport and the settings that lead to it."""
    place = {key: value for key, value in device.settings.items() if key not in SAME_DEVICE}
    digest = hashlib.sha256(json.dumps([device.module, place], sort_keys=True, default=str).encode()).hexdigest()
    return folder() / f"device-{device.name}-{digest[:12]}.lock"


@contextlib.contextmanager
def exclusive(device: Plugin) -> Iterator[None]:
    """Wait until nothing else measures on the device, then keep it for the block. StorageError where the lock cannot be trusted."""
    path = file_of(device)
    with os.fdopen(opened(path), "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another process measures on the device '{device.name}' ({path})", file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def opened(path: Path) -> int:
    """A descriptor of the lock file, which is made where it is missing and never emptied. The folder for temporary files is open to
    every user, so neither the folder of the locks nor the file may be a link, and the folder must be this user's alone."""
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        place = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            check_owner(path.parent, os.fstat(place))
            return os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place)
        finally:
            os.close(place)
    except OSError as error:
        raise StorageError(f"the lock {path} cannot be opened: {error.strerror}; {ADVICE}") from error


def check_owner(folder: Path, found: os.stat_result) -> None:
    """StorageError where another user owns the folder, or any user may write in it."""
    if found.st_uid != os.geteuid():
        raise StorageError(f"the folder of locks {folder} belongs to user {found.st_uid}, not to user {os.geteuid()}; {ADVICE}")
    if found.st_mode & stat.S_IWOTH:
        raise StorageError(f"any user may write into the folder of locks {folder}; run: chmod 700 {folder}")


# The way from the configuration to a device.


@contextlib.contextmanager
def connected(device: Plugin) -> Iterator[Connection]:
    """A connection to the configured device. Whatever goes wrong on it leaves this block as DeviceError with the fault's word."""
    module = device.load()
    try:
        with module.connect(build(module.Settings, device.settings, "device")) as connection:
            yield cast(Connection, connection)
    except Fault as fault:
        raise DeviceError(fault.word, str(fault)) from fault
