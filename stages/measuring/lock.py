"""One device measures one thing at a time: a lock for each device, across processes, clones and sweeps of one user on this machine.
Other hosts are kept out by the connection itself (plugins.Connection.alone).

The kernel lets go of it when its holder ends, however it ends, so there is no such thing as a stale lock.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stages.core.config import Plugin

# Settings that say how a device is used, not which one it is.
SAME_DEVICE = (
    *("threads", "cool_down_degc", "cool_down_max_s"),
    *("user", "key", "config", "python", "workdir", "cache_mb", "connect_s", "run_max_s", "busy_max_s"),
)


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
    """Wait until nothing else measures on the device, then keep it for the block."""
    path = file_of(device)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another process measures on the device '{device.name}' ({path})", file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
