"""Stable facts of the machine that this runs on, which a result may depend on, and their fingerprint.

No host name, no frequency, no free memory: the same machine has the same fingerprint tomorrow.
"""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

# Instructions that decide how fast a float or integer kernel can be (x86, then arm64).
INSTRUCTION_SETS = (
    *("sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "fphp", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
RAM_STEP_MIB = 64  # a kernel update changes MemTotal by a few MiB, but not the machine


def facts(packages: Iterable[str]) -> Dict[str, Any]:
    """The facts, with None for what this machine does not tell. packages: distributions whose versions matter; they are not imported."""
    cpuinfo = _read_text("/proc/cpuinfo")
    return {
        "machine": platform.machine(),
        "board": _read_text("/proc/device-tree/model").strip("\0\n ") or None,
        "cpu": _find_cpu(cpuinfo),
        "isa": _find_isa(cpuinfo),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "cpu_quota_cores": _find_quota_cores(),
        "ram_mib": _find_ram_mib(_read_text("/proc/meminfo")),
        "system": platform.system(),
        "kernel_major": platform.release().split(".", 1)[0],
        "governor": _read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "python": platform.python_version(),
        "packages": {name: find_version(name) for name in sorted({"numpy", *packages})},
    }


def fingerprint(found: Mapping[str, Any]) -> str:
    """sha256 of the facts as JSON."""
    import hashlib  # 4 MB, which a measured process should not hold

    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def find_version(package: str) -> Optional[str]:
    """Version of a distribution; None if it is not installed."""
    from importlib import metadata  # 3 MB, as above

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read_text(path: str) -> str:
    """The content of a file of /proc or /sys; empty if this machine does not have it."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _find_cpu(cpuinfo: str) -> str:
    """The processor's name; arm64 kernels give numbers of implementer and part instead (Arm, Main ID Register)."""
    name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if name:
        return name.group(1).strip()
    parts = (re.search(rf"^CPU {key}\s*:\s*(\w+)$", cpuinfo, re.MULTILINE) for key in ("implementer", "part"))
    return " ".join(found.group(1) for found in parts if found) or platform.processor() or "unknown"


def _find_isa(cpuinfo: str) -> List[str]:
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    present = set(listed.group(1).split()) if listed else set()
    return [name for name in INSTRUCTION_SETS if name in present]


def _find_ram_mib(meminfo: str) -> Optional[int]:
    total = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return round(int(total.group(1)) / 1024 / RAM_STEP_MIB) * RAM_STEP_MIB if total else None


def _find_quota_cores() -> Optional[float]:
    """Processor time that the control group (v2, then v1) allows, in cores; None without a limit."""
    words = _read_text("/sys/fs/cgroup/cpu.max").split() or [
        _read_text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip(),
        _read_text("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip(),
    ]
    limited = len(words) == 2 and all(word.isdigit() for word in words)
    return round(int(words[0]) / int(words[1]), 3) if limited else None
