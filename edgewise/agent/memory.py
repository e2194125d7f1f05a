"""What this process occupies, as the kernel counts it."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from edgewise.agent import protocol

FIELDS = {"rss": "VmRSS", "peak": "VmHWM", "anonymous": "RssAnon", "file": "RssFile", "shared": "RssShmem"}


def marks() -> Dict[str, int]:
    """rss, peak since the last reset, and the anonymous, file-backed and shared parts of rss; bytes."""
    status = Path("/proc/self/status").read_text()
    found = {name: re.search(rf"^{key}:\s*(\d+) kB$", status, re.MULTILINE) for name, key in FIELDS.items()}
    return {name: int(match.group(1)) * 1024 for name, match in found.items() if match}


def reset_peak() -> bool:
    """Set the peak back to what is occupied now (5 in clear_refs, see proc(5)); False where the kernel refuses."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


# Files that a measured run should read anew: pages in the cache are charged to whoever touched them first.


def files(runner: str, model: str) -> List[Path]:
    """All files below a model's folder, and the shared objects of its runtime and of numpy, found without importing either."""
    packages = ["numpy", _runtime(runner).partition(".")[0]]
    folders = [Path(place) for name in packages for place in _places(name)]
    return [path for path in Path(model).rglob("*") if path.is_file()] + [p for f in folders for p in f.rglob("*.so*") if p.is_file()]


def _runtime(runner: str) -> str:
    """RUNTIME of a run.py, read from its text: importing it would load numpy into this process."""
    spec = importlib.util.find_spec(runner)
    tree = ast.parse(Path(spec.origin).read_text() if spec and spec.origin else "")
    names = {t.id: n.value for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    return str(ast.literal_eval(names["RUNTIME"]))


def _places(package: str) -> List[str]:
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or []) if spec else []


def forget(paths: List[Path]) -> None:
    """Drop files from the page cache, as far as nobody maps them."""
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# Does a model run within so many bytes? Answered by running it under a limit that the kernel enforces, or not at all.
#
# The limit is a control group (v1 or v2) of its own, or a scope of systemd-run. File pages are charged to whoever touches them first,
# so the files of the model and of its runtime are dropped from the page cache before; what python itself shares with this agent is not
# charged to the run.

PROCESSES = Path("/proc/self/cgroup")
ROOTS = {"v1": Path("/sys/fs/cgroup/memory"), "v2": Path("/sys/fs/cgroup")}
FILES = {  # limit, no swap beside it, counter of kills
    "v1": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"),
    "v2": ("memory.max", "memory.swap.max", "memory.events"),
}
AGENT = (sys.executable, "-m", "edgewise.agent.program")
ENTER = ("sh", "-c", 'echo $$ > "$0" && exec "$@"')  # the shell joins the group, then becomes the agent
TRIAL_BYTES = 64 << 20  # to see whether a limit can be set
EMPTY_S = 2.0  # a group can be removed a moment after its last process has gone


@dataclass(frozen=True)
class Limit:
    """A way to start a process under a limit. counter: a file with a line `oom_kill N`."""

    how: str
    prefix: Tuple[str, ...]
    counter: Path
    folder: Optional[Path] = None

    def oom_kills(self) -> int:
        found = re.search(r"^oom_kill (\d+)$", self.counter.read_text(), re.MULTILINE)
        return int(found.group(1)) if found else 0

    def remove(self) -> None:
        end = time.monotonic() + EMPTY_S
        while self.folder and self.folder.exists() and time.monotonic() < end:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            time.sleep(0.02)


def make(limit_bytes: int) -> Optional[Limit]:
    """The first way that works on this machine; None where there is none."""
    return next((limit for limit in _ways(limit_bytes) if limit), None)


def available() -> str:
    """How a limit is set on this machine; `none` where the user can set none."""
    limit = make(TRIAL_BYTES)
    if not limit:
        return "none"
    limit.remove()
    return limit.how


def _ways(limit_bytes: int) -> Iterator[Optional[Limit]]:
    for line in PROCESSES.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        version = "v2" if not controllers else "v1"
        if version == "v2" or "memory" in controllers.split(","):
            own = ROOTS[version] / path.lstrip("/")
            for parent in (own, own.parent, ROOTS[version]):
                yield _group(version, parent, limit_bytes)
    for user in ((), ("--user",)):
        yield _scope(user, limit_bytes)


def _group(version: str, parent: Path, limit_bytes: int) -> Optional[Limit]:
    folder = parent / f"edgewise-{os.getpid()}"
    limit, swap, counter = (folder / name for name in FILES[version])
    try:
        folder.mkdir()
    except OSError:
        return None
    try:
        with limit.open("r+") as stream:  # never made here: the kernel offers it or not
            stream.write(str(limit_bytes))
        if swap.exists():
            swap.write_text(str(limit_bytes if version == "v1" else 0))
        counter.read_text()
    except OSError:  # the memory controller is not handed down to this group
        folder.rmdir()
        return None
    return Limit(f"cgroup {version}", (*ENTER, str(folder / "cgroup.procs")), counter, folder)


def _scope(user: Tuple[str, ...], limit_bytes: int) -> Optional[Limit]:
    command = ("systemd-run", *user, "--scope", "--quiet", "-p", f"MemoryMax={limit_bytes}", "-p", "MemorySwapMax=0")
    if not shutil.which(command[0]) or subprocess.run([*command, "true"], stdout=2, stderr=subprocess.DEVNULL).returncode:
        return None
    return Limit("systemd-run", command, Path("/proc/vmstat"))


def run(job: Mapping[str, Any]) -> Dict[str, Any]:
    """Run the job as a latency job under its limit. verdict: ok, oom (with the kernel's count), failed or not tested."""
    limit = make(job["limit_bytes"])
    told = {"limit_bytes": job["limit_bytes"], "how": limit.how if limit else "none", "events": []}
    if not limit:
        return {**told, "verdict": "not tested", "evidence": "this machine lets the user set no memory limit (cgroup v1, v2, systemd-run)"}
    try:
        forget(files(job["runner"], job["model"]))
        before, start = limit.oom_kills(), time.monotonic()
        events, code = _run_inner(limit, job)
        kills, spent_s = limit.oom_kills() - before, time.monotonic() - start
    finally:
        limit.remove()
    if events and events[-1]["event"] == "done":
        return {**told, "events": events, "verdict": "ok", "evidence": "ran to its end"}
    if kills:
        return {**told, "events": events, "verdict": "oom", "evidence": f"exit {code}; the kernel counts oom_kill {kills} in {limit.how}"}
    if spent_s >= job["inner_deadline_s"]:
        evidence = f"no end after {spent_s:.0f} s: at this limit the same pages are read again and again"
        return {**told, "events": events, "verdict": "failed", "evidence": evidence}
    last = events[-1].get("message", events[-1]["event"]) if events else "nothing"
    return {**told, "events": events, "verdict": "failed", "evidence": f"exit {code} without a kill for memory; last said: {last}"}


def _run_inner(limit: Limit, job: Mapping[str, Any]) -> Tuple[List[Dict[str, Any]], int]:
    inner = subprocess.Popen([*limit.prefix, *AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert inner.stdin and inner.stdout
    fields = {name: job[name] for name in protocol.JOBS["latency"]}
    with contextlib.suppress(BrokenPipeError):
        inner.stdin.write(protocol.job_line(kind="latency", deadline_s=job["inner_deadline_s"], **fields))
        inner.stdin.flush()
    lines = inner.stdout.read().splitlines(keepends=True)  # its stdin stays open until then: the end of it would end the agent
    return [json.loads(line) for line in lines if line.endswith(b"\n")], inner.wait()
