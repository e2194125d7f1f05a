"""The cache on the device: one folder for each tree of files, named by its content, sent once and checked at each use.

This file is run alone, as the text of `python -c`, before anything else is there: it imports nothing of Edgewise.

    stdin     one JSON line: {"act": look | receive | end, ...}; `receive` is followed by the bytes of its files, in order
    stdout    one JSON line after MARK; whatever a login shell prints before it stands on lines of its own
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

MARK = "edgewise-store:"
SPARE_BYTES = 4 << 20  # left free for whoever else writes on the device
PART_S = 3600.0  # what is being received is no longer than this without a change, and not removed before
CHUNK_BYTES = 1 << 20
Request = Mapping[str, Any]


def trees_of(request: Request) -> Path:
    trees = own(Path(request["workdir"]).expanduser().resolve()) / "trees"
    trees.mkdir(exist_ok=True)
    return trees


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


def look(request: Request) -> Dict[str, Any]:
    """Whether the tree `key` lies here with every file as it should be; it counts as used now."""
    folder = trees_of(request) / request["key"]
    whole = all(matches(folder / name, *expected) for name, expected in request["files"].items())
    if whole:
        os.utime(folder)
    return {"home": os.getcwd(), "path": str(folder), "whole": whole}


def matches(path: Path, size: int, digest: str) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
            found.update(chunk)
    return found.hexdigest() == digest


def receive(request: Request) -> Dict[str, Any]:
    """Take the files of `key` from stdin into a folder beside its place, and rename that when every hash is right."""
    trees = trees_of(request)
    make_room(trees, sum(size for size, _ in request["files"].values()), request["limit_bytes"], request["keep"])
    folder, part = trees / request["key"], trees / f"{request['key']}.part-{os.getpid()}"
    try:
        for name, (size, digest) in request["files"].items():
            write(part / name, size, digest)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {"path": str(folder)}


def write(path: Path, size: int, digest: str) -> None:
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
    """Remove what was not used for longest until the new tree fits, both into the cache's limit and on the disk."""
    now = time.time()
    others = [p for p in trees.iterdir() if p.name not in keep and (".part-" not in p.name or now - p.stat().st_mtime > PART_S)]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    while others and (used_bytes(trees) + needed_bytes > limit_bytes or free_bytes(trees) < needed_bytes + SPARE_BYTES):
        shutil.rmtree(others.pop(), ignore_errors=True)
    if free_bytes(trees) < needed_bytes + SPARE_BYTES:
        seen = f"{needed_bytes >> 10} KiB are to be stored and {SPARE_BYTES >> 10} KiB to stay free, {free_bytes(trees) >> 10} KiB are free"
        raise OSError(errno.ENOSPC, f"{seen} in {trees.parent}")


def used_bytes(trees: Path) -> int:
    return sum(path.stat().st_size for path in trees.rglob("*") if path.is_file())


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def end(request: Request) -> Dict[str, Any]:
    """End the process groups of these runs: their link was lost, and nobody will read what they say."""
    ended = 0
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended by itself in the meantime
            words = command.read_bytes().decode(errors="replace").split("\0")
            if set(words) & set(request["runs"]):
                os.killpg(os.getpgid(int(command.parent.name)), signal.SIGKILL)
                ended += 1
    return {"ended": ended}


ACTS = {"look": look, "receive": receive, "end": end}


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    try:
        reply = ACTS[request["act"]](request)
    except OSError as error:
        fault = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "agent_error"
        named = f" ({error.filename})" if error.filename else ""
        reply = {"fault": fault, "seen": f"{error.strerror}{named}"}
    print(f"\n{MARK}{json.dumps(reply)}", flush=True)


if __name__ == "__main__":
    main()
