"""The file cache on the device: one folder for each tree of files, named by its content, sent once and verified at each use.

This file is run alone, as the text of `python -c`, before anything else is there: it imports nothing of Edgewise.

    stdin     one JSON line: {"act": find | receive | kill, ...}; `receive` is followed by the bytes of its files, in order
    stdout    one JSON line after MARK; whatever a login shell prints is on other lines
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping

MARK = "edgewise-cache:"
SPARE_BYTES = 4 << 20  # left free for other programs on the device
PARTIAL_MAX_S = 3600.0  # a partial tree without a change for this long is abandoned and may be removed
CHUNK_BYTES = 1 << 20
Request = Mapping[str, Any]


def main() -> None:
    """Do what the request on stdin asks for. An OSError becomes a reply with the fault."""
    request = json.loads(sys.stdin.buffer.readline())
    try:
        reply = ACTIONS[request["act"]](request)
    except OSError as error:
        fault = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "agent_error"
        place = f" ({error.filename})" if error.filename else ""
        reply = {"fault": fault, "seen": f"{error.strerror}{place}"}
    print(f"\n{MARK}{json.dumps(reply)}", flush=True)


def make_trees_folder(request: Request) -> Path:
    """The folder that holds all trees."""
    trees = make_private_folder(Path(request["workdir"]).expanduser().resolve()) / "trees"
    trees.mkdir(exist_ok=True)
    return trees


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


def find_tree(request: Request) -> Dict[str, Any]:
    """Whether the tree `key` is here with the right size and hash of every file; if so it counts as used now."""
    folder = make_trees_folder(request) / request["key"]
    complete = all(has_content(folder / name, *expected) for name, expected in request["files"].items())
    if complete:
        os.utime(folder)
    return {"home": os.getcwd(), "path": str(folder), "complete": complete}


def has_content(path: Path, size: int, digest: str) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
            found.update(chunk)
    return found.hexdigest() == digest


def receive_tree(request: Request) -> Dict[str, Any]:
    """Read the files of `key` from stdin into a temporary folder, and rename it once every hash is right."""
    trees = make_trees_folder(request)
    make_room(trees, sum(size for size, _ in request["files"].values()), request["limit_bytes"], request["keep"])
    folder, part = trees / request["key"], trees / f"{request['key']}.part-{os.getpid()}"
    try:
        for name, (size, digest) in request["files"].items():
            receive_file(part / name, size, digest)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {"path": str(folder)}


def receive_file(path: Path, size: int, digest: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found, left = hashlib.sha256(), size
    with path.open("wb") as stream:
        while left:
            chunk = sys.stdin.buffer.read(min(left, CHUNK_BYTES))
            if not chunk:
                sys.exit(f"the link ended with {left} bytes of {path.name} to come")
            stream.write(chunk)
            found.update(chunk)
            left -= len(chunk)
    if found.hexdigest() != digest:
        raise OSError(errno.EIO, f"{path} has another sha256 than the file that was sent")


def make_room(trees: Path, needed_bytes: int, limit_bytes: int, keep: List[str]) -> None:
    """Remove the least recently used trees until the new one fits, into the limit of the cache and on the disk. OSError if it cannot."""
    now = time.time()
    others = [p for p in trees.iterdir() if p.name not in keep and (".part-" not in p.name or now - p.stat().st_mtime > PARTIAL_MAX_S)]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    while others and (used_bytes(trees) + needed_bytes > limit_bytes or free_bytes(trees) < needed_bytes + SPARE_BYTES):
        shutil.rmtree(others.pop(), ignore_errors=True)
    if free_bytes(trees) < needed_bytes + SPARE_BYTES:
        seen = (
            f"{needed_bytes >> 10} KiB to store plus {SPARE_BYTES >> 10} KiB to leave free, but only {free_bytes(trees) >> 10} KiB are free"
        )
        raise OSError(errno.ENOSPC, f"{seen} in {trees.parent}")


def used_bytes(trees: Path) -> int:
    return sum(path.stat().st_size for path in trees.rglob("*") if path.is_file())


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def kill_runs(request: Request) -> Dict[str, Any]:
    """Kill the process groups of these runs: their link was lost, and nobody will read their output."""
    killed = 0
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended by itself in the meantime
            words = command.read_bytes().decode(errors="replace").split("\0")
            if set(words) & set(request["runs"]):
                os.killpg(os.getpgid(int(command.parent.name)), signal.SIGKILL)
                killed += 1
    return {"killed": killed}


ACTIONS = {"find": find_tree, "receive": receive_tree, "kill": kill_runs}


if __name__ == "__main__":
    main()
