"""One device measures one thing at a time: a lock for each device, across processes, clones and sweeps of one user on this machine.
Other hosts are kept out by the connection itself (plugins.Connection.alone).

The kernel lets go of it when its holder ends, however it ends, so there is no such thing as a stale lock.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stages.core.config import Plugin
from stages.core.errors import StorageError

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
