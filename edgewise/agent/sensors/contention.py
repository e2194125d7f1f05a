"""What takes the processor away: pressure (waiting tasks), steal (the hypervisor), context switches and page faults of this process."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path
from typing import List

from edgewise.agent.sensors import Source

PRESSURE = Path("/proc/pressure/cpu")
STAT = Path("/proc/stat")
STEAL_COLUMN = 8  # of the line `cpu`, its name counted


def find() -> List[Source]:
    sources = [
        Source("switches_voluntary_count", "switches", lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw, True, scope="process"),
        Source("faults_major_count", "faults", lambda: resource.getrusage(resource.RUSAGE_SELF).ru_majflt, True, scope="process"),
        Source("switches_forced_count", "switches", lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, True, scope="process"),
    ]
    if PRESSURE.exists():
        sources.append(Source("pressure_cpu_some_us", "pressure", pressure_us, True))
    if STAT.exists():
        sources.append(Source("steal_ns", "steal", steal_ns, True))
    return sources


def pressure_us() -> float:
    """Time in which at least one task of the machine waited for a processor."""
    found = re.search(r"^some .*total=(\d+)", PRESSURE.read_text(), re.MULTILINE)
    if not found:
        raise ValueError(f"no line `some` in {PRESSURE}")
    return float(found.group(1))


def steal_ns() -> float:
    """Time that the hypervisor took from a processor of this machine, ns, in the mean over all of them: the column `steal` of the
    line `cpu`, which sums over all processors (proc(5)), divided by how many lines `cpuN` there are. ValueError without them."""
    content = STAT.read_text()
    columns, processors = content.split("\n", 1)[0].split(), len(re.findall(r"^cpu\d+ ", content, re.MULTILINE))
    if len(columns) <= STEAL_COLUMN or not processors:
        raise ValueError(f"no column `steal` or no line `cpu0` in {STAT}")
    return int(columns[STEAL_COLUMN]) / processors * 1e9 / os.sysconf("SC_CLK_TCK")
