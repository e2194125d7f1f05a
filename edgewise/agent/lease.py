"""The device kept for one host: a lock in the workdir, held by this process for as long as its host is heard of.

The kernel lets go of the lock when this process ends, however it ends, so no lock is ever stale. It ends with its stdin, and when its
host has been silent for too long: a device may not notice for hours that a link is lost. This file is run alone, as `python -c`.

    stdin     one JSON line: {"workdir", "who", "wait_s", "silent_s"}, then a line now and then
    stdout    JSON lines after MARK: {"waiting": who holds it} once where it has to wait, then {"held": true} or {"fault", "seen"}
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import stat
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Mapping

MARK = "edgewise-hold:"
STEP_S = 0.5
UNKNOWN = "somebody"  # between taking the lock and writing the name


def tell(**reply: Any) -> None:
    print(f"\n{MARK}{json.dumps(reply)}", flush=True)


def take(lock: BinaryIO, wait_s: float) -> bool:
    """Whether the lock was taken within `wait_s`."""
    end, told = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            holder = holder_of(lock)
        if time.monotonic() >= end:
            tell(fault="busy", seen=f"{holder} measures on it, and did not end within {wait_s:g} s")
            return False
        if not told:
            tell(waiting=holder)
            told = True
        hear(STEP_S)  # also ends the wait where the host is gone


def holder_of(lock: BinaryIO) -> str:
    lock.seek(0)
    return lock.read(500).decode(errors="replace").strip() or UNKNOWN


def hear(seconds: float) -> bool:
    """Whether the host said something within `seconds`; this process ends with its stdin."""
    ready, _, _ = select.select([0], [], [], seconds)
    if ready and not os.read(0, 4096):
        sys.exit(0)
    return bool(ready)


def own(folder: Path) -> Path:
    """The folder, made where it is missing. OSError where it is another user's, or any user may write in it: what lies there is run."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    advice = "name another folder in device.workdir"
    if found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, f"{folder} belongs to user {found.st_uid}; {advice}")
    if found.st_mode & stat.S_IWOTH:
        raise OSError(errno.EPERM, f"{folder}: any user may write in it; {advice}, or run there: chmod o-w {folder}")
    return folder


def opened(path: Path) -> BinaryIO:
    """The lock file, which may hold the name of another holder. OSError where it is a symbolic link: its target would be written to."""
    try:
        handle = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, f"{path}: a symbolic link; remove it") from None
        raise
    return os.fdopen(handle, "a+b", buffering=0)


def hold(request: Mapping[str, Any]) -> None:
    workdir = own(Path(request["workdir"]).expanduser().resolve())
    with opened(workdir / "lock") as lock:
        if not take(lock, request["wait_s"]):
            return
        lock.truncate(0)
        lock.write(f"{request['who']} since {time.strftime('%H:%M:%S')}".encode())
        tell(held=True)
        while hear(request["silent_s"]):
            pass


def line() -> bytes:
    """The first line of stdin, byte by byte: what follows is for `hear`, not for a buffer."""
    said = b""
    while not said.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(0)
        said += byte
    return said


if __name__ == "__main__":
    try:
        hold(json.loads(line()))
    except OSError as error:
        tell(fault="agent_error", seen=f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror))
