"""Digests of many files by what is in them, each read once: what was seen stays in .edgewise/file-digests under size and modification time.

A clone of the project, or a copy of the pictures, gets the same digests, so that it finds what others have made. Only the first look
reads the files, and a later one those whose size or time is another.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from edgewise.artifacts.artifact import sha256, write_json

STORE = Path(".edgewise/file-digests")
UNREADABLE = "unreadable"  # in the place of a digest; the stage that reads the file says why
Seen = dict[str, list[int | str]]  # name -> size, modification time in ns, sha256 in hex


def digest_files(base: Path, paths: Iterable[Path]) -> tuple[dict[str, str], int]:
    """{path relative to `base`: sha256 in hex} in the order of `paths`, and the bytes of all files together.

    base: the folder or file that the data set is named by. A file that cannot be read has the digest "unreadable".
    """
    store = STORE / f"{hashlib.sha256(os.fsencode(base.resolve())).hexdigest()[:16]}.json"
    kept = read_seen(store)
    seen: Seen = {}
    total = 0
    for path in paths:
        name = relative_name(os.fspath(path), os.fspath(base))
        size, changed_ns = look(path)
        before = kept.get(name, [])
        same = before[:2] == [size, changed_ns] and before[2] != UNREADABLE
        seen[name] = before if same else [size, changed_ns, read_digest(path)]
        total += size
    if seen != kept:
        with suppress(OSError):  # a store that cannot be written only costs the next run its time
            write_json(store, seen)
    return {name: str(entry[2]) for name, entry in seen.items()}, total


def relative_name(path: str, base: str) -> str:
    inside = f"{base}/"
    return path.removeprefix(inside) if path.startswith(inside) else os.path.relpath(path, base)  # the latter takes 5 us


def look(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns; of a link that leads nowhere its own."""
    try:
        status = path.stat()
    except OSError:
        status = path.lstat()
    return status.st_size, status.st_mtime_ns


def read_digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return UNREADABLE


def read_seen(store: Path) -> Seen:
    """What was seen before; nothing where the store is missing or damaged."""
    try:
        found = json.loads(store.read_bytes())
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, list) and len(entry) == 3}
