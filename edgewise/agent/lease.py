"""Lease of the device for one host: a lock file in the workdir, held by this process as long as it hears from its host.

The kernel releases the lock when this process ends, however it ends, so no lock is ever stale. The process ends with its stdin, and when
its host has been silent for too long: a device may not notice for hours that a link is lost. This file is run alone, as `python -c`.

    stdin     one JSON line: {"workdir", "who", "wait_s", "silent_s"}, then a line now and then
    stdout    JSON lines after MARK: {"waiting": holder} once if it has to wait, then {"held": true} or {"fault", "seen"}
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

MARK = "edgewise-lease:"
POLL_S = 0.5
UNKNOWN_HOLDER = "somebody"  # between locking the file and writing the name


def main() -> None:
    try:
        hold_lease(json.loads(read_request()))
    except OSError as error:
        send(fault="agent_error", seen=f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror))


def read_request() -> bytes:
    """The first line of stdin, byte by byte: what follows is for `hear`, not for a buffer."""
    content = b""
    while not content.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(0)
        content += byte
    return content


def hold_lease(request: Mapping[str, Any]) -> None:
    """Acquire the lease, say so, and keep it until the host is silent for `silent_s` or stdin ends."""
    workdir = make_private_folder(Path(request["workdir"]).expanduser().resolve())
    with open_lock(workdir / "lock") as lock:
        if not acquire(lock, request["wait_s"]):
            return
        lock.truncate(0)
        lock.write(f"{request['who']} since {time.strftime('%H:%M:%S')}".encode())
        send(held=True)
        while wait_for_host(request["silent_s"]):
            pass


def make_private_folder(folder: Path) -> Path:
    """Create the folder if it is missing. Code in it is executed, so: OSError if it is another user's or any user may write in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    advice = "name another folder in device.workdir"
    if found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, f"{folder} belongs to user {found.st_uid}; {advice}")
    if found.st_mode & stat.S_IWOTH:
        raise OSError(errno.EPERM, f"{folder}: any user may write in it; {advice}, or run there: chmod o-w {folder}")
    return folder


def open_lock(path: Path) -> BinaryIO:
    """Open the lock file, which may hold the name of another holder. OSError if it is a symbolic link: its target would be written to."""
    try:
        handle = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, f"{path}: a symbolic link; remove it") from None
        raise
    return os.fdopen(handle, "a+b", buffering=0)


def acquire(lock: BinaryIO, wait_s: float) -> bool:
    """Whether the lock was taken within `wait_s`."""
    end, announced = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            holder = read_holder(lock)
        if time.monotonic() >= end:
            send(fault="busy", seen=f"{holder} measures on it, and did not end within {wait_s:g} s")
            return False
        if not announced:
            send(waiting=holder)
            announced = True
        wait_for_host(POLL_S)  # exits if the host is gone


def read_holder(lock: BinaryIO) -> str:
    lock.seek(0)
    return lock.read(500).decode(errors="replace").strip() or UNKNOWN_HOLDER


def wait_for_host(seconds: float) -> bool:
    """Whether the host wrote something within `seconds`. Exits at the end of stdin."""
    ready, _, _ = select.select([0], [], [], seconds)
    if ready and not os.read(0, 4096):
        sys.exit(0)
    return bool(ready)


def send(**reply: Any) -> None:
    print(f"\n{MARK}{json.dumps(reply)}", flush=True)


if __name__ == "__main__":
    main()
