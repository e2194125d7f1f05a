"""Memory of a process: what it uses, as the kernel counts it, and whether a model runs within a limit that the kernel enforces.

The limit is a control group (v1 or v2) of its own, or a scope of systemd-run; without either the question is not answered. File pages
are charged to the process that touches them first, so the files of the model and of its runtime are dropped from the page cache
before; what Python itself shares with this agent is not charged to the run.
"""

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

USAGE_FIELDS = {"rss": "VmRSS", "peak": "VmHWM", "anonymous": "RssAnon", "file": "RssFile", "shared": "RssShmem"}
OWN_GROUPS = Path("/proc/self/cgroup")
GROUP_ROOTS = {"v1": Path("/sys/fs/cgroup/memory"), "v2": Path("/sys/fs/cgroup")}
LIMIT_FILES = {  # version -> files of the limit, of the limit with swap (v1) or of swap (v2), and of the kill counter
    "v1": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"),
    "v2": ("memory.max", "memory.swap.max", "memory.events"),
}
AGENT = (sys.executable, "-m", "edgewise.agent.program")
JOIN_GROUP = ("sh", "-c", 'echo $$ > "$0" && exec "$@"')  # the shell joins the group, then becomes the agent
TRIAL_BYTES = 64 << 20  # for finding out whether a limit can be set
REMOVE_S = 2.0  # a group can be removed only a moment after its last process has ended


def read_usage() -> Dict[str, int]:
    """Bytes of this process: rss, its peak since the last reset, and its anonymous, file-backed and shared parts; see proc(5)."""
    status = Path("/proc/self/status").read_text()
    found = {name: re.search(rf"^{key}:\s*(\d+) kB$", status, re.MULTILINE) for name, key in USAGE_FIELDS.items()}
    return {name: int(match.group(1)) * 1024 for name, match in found.items() if match}


def reset_peak() -> bool:
    """Reset the peak to the current rss (write 5 to clear_refs, see proc(5)). False if the kernel refuses."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def run_limited(job: Mapping[str, Any]) -> Dict[str, Any]:
    """Run the job as a latency job under its limit. Fields of the event `limited`; verdict: ok, oom (by the kernel's own count), failed, or
    not tested where no limit can be set."""
    limit = create_limit(job["limit_bytes"])
    common = {"limit_bytes": job["limit_bytes"], "how": limit.how if limit else "none", "events": []}
    if not limit:
        return {
            **common,
            "verdict": "not tested",
            "evidence": "this machine lets the user set no memory limit (cgroup v1, v2, systemd-run)",
        }
    try:
        drop_from_page_cache(list_files(job["runner"], job["model"]))
        before, start = limit.oom_kills(), time.monotonic()
        events, code = _run_agent(limit, job)
        kills, spent_s = limit.oom_kills() - before, time.monotonic() - start
    finally:
        limit.remove()
    if events and events[-1]["event"] == "done":
        return {**common, "events": events, "verdict": "ok", "evidence": "ran to its end"}
    if kills:
        return {**common, "events": events, "verdict": "oom", "evidence": f"exit {code}; the kernel counts oom_kill {kills} in {limit.how}"}
    if spent_s >= job["inner_deadline_s"]:
        evidence = f"no end after {spent_s:.0f} s: at this limit the same pages are read again and again"
        return {**common, "events": events, "verdict": "failed", "evidence": evidence}
    last = events[-1].get("message", events[-1]["event"]) if events else "nothing"
    return {**common, "events": events, "verdict": "failed", "evidence": f"exit {code} without a kill for memory; last message: {last}"}


def _run_agent(limit: MemoryLimit, job: Mapping[str, Any]) -> Tuple[List[Dict[str, Any]], int]:
    inner = subprocess.Popen([*limit.prefix, *AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert inner.stdin and inner.stdout
    fields = {name: job[name] for name in protocol.JOBS["latency"]}
    with contextlib.suppress(BrokenPipeError):
        inner.stdin.write(protocol.encode_job(kind="latency", deadline_s=job["inner_deadline_s"], **fields))
        inner.stdin.flush()
    lines = inner.stdout.read().splitlines(keepends=True)  # its stdin stays open until then: the end of it would end the agent
    return [json.loads(line) for line in lines if line.endswith(b"\n")], inner.wait()


@dataclass(frozen=True)
class MemoryLimit:
    """A way to start a process under a limit: `prefix` goes before its command. counter: a file with a line `oom_kill N`."""

    how: str
    prefix: Tuple[str, ...]
    counter: Path
    folder: Optional[Path] = None

    def oom_kills(self) -> int:
        found = re.search(r"^oom_kill (\d+)$", self.counter.read_text(), re.MULTILINE)
        return int(found.group(1)) if found else 0

    def remove(self) -> None:
        end = time.monotonic() + REMOVE_S
        while self.folder and self.folder.exists() and time.monotonic() < end:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            time.sleep(0.02)


def create_limit(limit_bytes: int) -> Optional[MemoryLimit]:
    """A memory limit, by the first method that works on this machine; None if the user can set none."""
    return next((limit for limit in _try_methods(limit_bytes) if limit), None)


def available_method() -> str:
    """The method by which a limit is set on this machine; `none` if the user can set none."""
    limit = create_limit(TRIAL_BYTES)
    if not limit:
        return "none"
    limit.remove()
    return limit.how


def _try_methods(limit_bytes: int) -> Iterator[Optional[MemoryLimit]]:
    for line in _read_own_groups():
        _, controllers, path = line.split(":", 2)
        version = "v2" if not controllers else "v1"
        if version == "v2" or "memory" in controllers.split(","):
            own = GROUP_ROOTS[version] / path.lstrip("/")
            for parent in (own, own.parent, GROUP_ROOTS[version]):
                yield _try_cgroup(version, parent, limit_bytes)
    for user in ((), ("--user",)):
        yield _try_systemd(user, limit_bytes)


def _read_own_groups() -> List[str]:
    """The lines of /proc/self/cgroup; none on a kernel without control groups."""
    try:
        return OWN_GROUPS.read_text().splitlines()
    except OSError:
        return []


def _try_cgroup(version: str, parent: Path, limit_bytes: int) -> Optional[MemoryLimit]:
    folder = parent / f"edgewise-{os.getpid()}"
    limit, swap, counter = (folder / name for name in LIMIT_FILES[version])
    try:
        folder.mkdir()
    except OSError:
        return None
    try:
        with limit.open("r+") as stream:  # never created here: the kernel offers it or not
            stream.write(str(limit_bytes))
        if swap.exists():
            swap.write_text(str(limit_bytes if version == "v1" else 0))
        counter.read_text()
    except OSError:  # the memory controller is not handed down to this group
        folder.rmdir()
        return None
    return MemoryLimit(f"cgroup {version}", (*JOIN_GROUP, str(folder / "cgroup.procs")), counter, folder)


def _try_systemd(user: Tuple[str, ...], limit_bytes: int) -> Optional[MemoryLimit]:
    command = ("systemd-run", *user, "--scope", "--quiet", "-p", f"MemoryMax={limit_bytes}", "-p", "MemorySwapMax=0")
    if not shutil.which(command[0]) or subprocess.run([*command, "true"], stdout=2, stderr=subprocess.DEVNULL).returncode:
        return None
    return MemoryLimit("systemd-run", command, Path("/proc/vmstat"))


def list_files(runner: str, model: str) -> List[Path]:
    """All files in a model's folder and the shared objects of its runtime, of what that stands on, and of numpy, found without importing
    them."""
    packages = ["numpy", *_runtime_packages(runner)]
    folders = [Path(place) for name in packages for place in _package_folders(name)]
    return [path for path in Path(model).rglob("*") if path.is_file()] + [p for f in folders for p in f.rglob("*.so*") if p.is_file()]


def _runtime_packages(runner: str) -> List[str]:
    """Top-level import names of RUNTIME and COMPANIONS of a run.py, read from its source: importing it would load numpy into this
    process."""
    spec = importlib.util.find_spec(runner)
    tree = ast.parse(Path(spec.origin).read_text() if spec and spec.origin else "")
    plain = [(target, node.value) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    typed = [(node.target, node.value) for node in tree.body if isinstance(node, ast.AnnAssign) and node.value is not None]
    names = {target.id: value for target, value in (*plain, *typed) if isinstance(target, ast.Name)}
    companions = ast.literal_eval(names["COMPANIONS"]) if "COMPANIONS" in names else {}
    return [str(name).partition(".")[0] for name in (ast.literal_eval(names["RUNTIME"]), *companions)]


def _package_folders(package: str) -> List[str]:
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or []) if spec else []


def drop_from_page_cache(paths: List[Path]) -> None:
    """Drop files from the page cache, except for pages that some process has mapped."""
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
