"""The device kept for one host: a lock in the workdir, held by this process for as long as its host is heard of.

The kernel lets go of the lock when this process ends, however it ends, so no lock is ever stale. It ends with its stdin, and when its
host has been silent for too long: a device may not notice for hours that a link is lost. This file is run alone, as `python -c`.

    stdin     one JSON line: {"workdir", "who", "wait_s", "silent_s"}, then a line now and then
    stdout    JSON lines after MARK: {"waiting": who holds it} once where it has to wait, then {"held": true} or {"fault", "seen"}
"""

from __future__ import annotations

import fcntl
import json
import os
import select
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


def hold(request: Mapping[str, Any]) -> None:
    workdir = Path(request["workdir"]).expanduser().resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    with open(str(workdir / "lock"), "a+b", buffering=0) as lock:
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
        tell(fault="agent_error", seen=f"{error.strerror} ({error.filename})")
