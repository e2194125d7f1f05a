"""Stable facts of the machine that this runs on: what a result may depend on, and nothing that changes by itself.

No host name, no frequency, no free memory: the same machine gives the same fingerprint tomorrow.
"""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

# Instructions that decide how fast a float or integer kernel can be (x86, then arm64).
ISA = (
    *("sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "fphp", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
RAM_STEP_MIB = 64  # a kernel update moves MemTotal by a few MiB; that is no other machine


def facts(packages: Iterable[str]) -> Dict[str, Any]:
    """`packages`: distributions whose versions matter here; they are looked up, never imported."""
    cpuinfo = _text("/proc/cpuinfo")
    return {
        "machine": platform.machine(),
        "board": _text("/proc/device-tree/model").strip("\0\n ") or None,
        "cpu": _cpu(cpuinfo),
        "isa": _isa(cpuinfo),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "cpu_quota_cores": _quota_cores(),
        "ram_mib": _ram_mib(_text("/proc/meminfo")),
        "system": platform.system(),
        "kernel_major": platform.release().split(".", 1)[0],
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in sorted({"numpy", *packages})},
    }


def fingerprint(found: Mapping[str, Any]) -> str:
    """sha256 over the facts."""
    import hashlib  # 4 MB, which a measured process should not hold

    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def version(package: str) -> Optional[str]:
    """Version of an installed distribution; None where it is not installed."""
    from importlib import metadata  # 3 MB, as above

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _text(path: str) -> str:
    """The text of a file of /proc or /sys; empty where this machine has no such file."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _cpu(cpuinfo: str) -> str:
    """The processor's name; arm64 kernels give numbers of maker and part instead (ARM's "Main ID Register")."""
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if named:
        return named.group(1).strip()
    parts = (re.search(rf"^CPU {key}\s*:\s*(\w+)$", cpuinfo, re.MULTILINE) for key in ("implementer", "part"))
    return " ".join(found.group(1) for found in parts if found) or platform.processor() or "unknown"


def _isa(cpuinfo: str) -> List[str]:
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    present = set(listed.group(1).split()) if listed else set()
    return [name for name in ISA if name in present]


def _ram_mib(meminfo: str) -> Optional[int]:
    total = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return round(int(total.group(1)) / 1024 / RAM_STEP_MIB) * RAM_STEP_MIB if total else None


def _quota_cores() -> Optional[float]:
    """Processor time that the control group allows, in cores; None without a limit. v2, then v1."""
    words = _text("/sys/fs/cgroup/cpu.max").split() or [
        _text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip(),
        _text("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip(),
    ]
    limited = len(words) == 2 and all(word.isdigit() for word in words)
    return round(int(words[0]) / int(words[1]), 3) if limited else None
