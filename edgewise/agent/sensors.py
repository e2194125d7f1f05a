"""Sensors of the device: temperature, frequency, throttling, and what takes the processor away. Energy and power: see `power`.

`find` lists what this machine has. A source that exists and cannot be read carries the reason in `problem`, so that "no permission" is
never taken for "not there".
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

THERMAL = Path("/sys/class/thermal")
PROCESSORS = Path("/sys/devices/system/cpu")
PRESSURE = Path("/proc/pressure/cpu")
STAT = Path("/proc/stat")
STEAL_COLUMN = 8  # of the line `cpu` in /proc/stat, its name counted
VCGENCMD = "vcgencmd"
VCGENCMD_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Source:
    """One value of one sensor. `name` is unique and ends with the unit; `quantity` is what is measured (steal, temperature ...).

    counter: the value only grows, and starts again at `wraps_at` where that is known; the host takes differences.
    scope: how much of the machine it sees; for energy and power: device, board, package, or the name of a part.
    """

    name: str
    quantity: str
    read: Callable[[], float]
    counter: bool = False
    wraps_at: Optional[float] = None
    scope: str = "machine"
    problem: Optional[str] = None


def find(*quantities: str) -> List[Source]:
    """All sources of these quantities on this machine: switches, faults, pressure, steal, temperature, frequency, throttle."""
    found = [source for find_some in FINDERS for source in find_some()]
    return [source for source in found if source.quantity in quantities]


def snapshot(sources: List[Source]) -> Dict[str, Optional[float]]:
    """The value of each source now, by name; None if it cannot be read or has gone."""
    return {source.name: _read_or_none(source) for source in sources}


def _read_or_none(source: Source) -> Optional[float]:
    try:
        return source.read()
    except (OSError, ValueError):  # unplugged, no permission, or not a number
        return None


def describe(source: Source) -> Dict[str, Any]:
    """All fields but `read`: what the host needs in order to interpret the values."""
    return {field.name: getattr(source, field.name) for field in fields(source) if field.name != "read"}


def find_contention() -> List[Source]:
    """Context switches and page faults of this process, pressure and steal of the machine."""
    sources = [
        Source("switches_voluntary_count", "switches", lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw, True, scope="process"),
        Source("faults_major_count", "faults", lambda: resource.getrusage(resource.RUSAGE_SELF).ru_majflt, True, scope="process"),
        Source("switches_forced_count", "switches", lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, True, scope="process"),
    ]
    if PRESSURE.exists():
        sources.append(Source("pressure_cpu_some_us", "pressure", read_pressure_us, True))
    if STAT.exists():
        sources.append(Source("steal_ns", "steal", read_steal_ns, True))
    return sources


def read_pressure_us() -> float:
    """Time in which at least one task of the machine waited for a processor, us: `some` of /proc/pressure/cpu. ValueError without it."""
    found = re.search(r"^some .*total=(\d+)", PRESSURE.read_text(), re.MULTILINE)
    if not found:
        raise ValueError(f"no line `some` in {PRESSURE}")
    return float(found.group(1))


def read_steal_ns() -> float:
    """Time that the hypervisor took from a processor of this machine, ns, averaged over all of them: the column `steal` of the line
    `cpu`, which sums over all processors (proc(5)), divided by the number of lines `cpuN`. ValueError without them."""
    content = STAT.read_text()
    columns, processors = content.split("\n", 1)[0].split(), len(re.findall(r"^cpu\d+ ", content, re.MULTILINE))
    if len(columns) <= STEAL_COLUMN or not processors:
        raise ValueError(f"no column `steal` or no line `cpu0` in {STAT}")
    return int(columns[STEAL_COLUMN]) / processors * 1e9 / os.sysconf("SC_CLK_TCK")


def find_temperatures() -> List[Source]:
    """The kernel's thermal zones, thousandths of a degree Celsius. The type of a zone tells what it measures (cpu-thermal ...)."""
    return [_make_thermal_source(zone) for zone in sorted(THERMAL.glob("thermal_zone*"))]


def _make_thermal_source(zone: Path) -> Source:
    kind, path = read_text(zone / "type") or "unnamed", zone / "temp"
    return Source(f"{zone.name}_{kind}_mdegc", "temperature", partial(read_number, path), problem=find_problem(path))


def find_frequencies() -> List[Source]:
    """The frequency that each processor runs at, kHz, as the kernel reports it."""
    paths = sorted(PROCESSORS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    return [Source(f"{path.parts[-3]}_khz", "frequency", partial(read_number, path), problem=find_problem(path)) for path in paths]


def find_throttling() -> List[Source]:
    """The throttling bits of a Raspberry Pi's firmware."""
    return [Source("throttle_bits", "throttle", read_throttle_bits)] if shutil.which(VCGENCMD) else []


def read_throttle_bits() -> float:
    """Bits 0-3: low voltage, capped, throttled, soft temperature limit, now; 16-19: the same at any time since boot.

    Source: `vcgencmd get_throttled` in the Raspberry Pi documentation.
    """
    found = re.search(r"throttled=(0x[0-9a-fA-F]+)", run_vcgencmd("get_throttled"))
    if not found:
        raise ValueError("get_throttled gives no bits")
    return float(int(found.group(1), 16))


def run_vcgencmd(*words: str) -> str:
    """The answer of a Raspberry Pi's firmware. OSError where it refuses or does not answer."""
    try:
        answer = subprocess.run([VCGENCMD, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=VCGENCMD_TIMEOUT_S, text=True)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{VCGENCMD} {words[0]}: no answer") from error
    if answer.returncode or "error=" in answer.stdout:
        raise OSError(f"{VCGENCMD} {words[0]}: {answer.stdout.strip()[:100]}")
    return answer.stdout


FINDERS = (find_contention, find_frequencies, find_throttling, find_temperatures)


def read_text(path: Path) -> str:
    """The content of a file of /sys; empty if it does not exist or cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def read_number(path: Path) -> float:
    """The number that a file of /sys consists of. OSError or ValueError if there is none."""
    return float(path.read_text())


def find_problem(path: Path) -> Optional[str]:
    """Why the number in a file cannot be read; None if it can."""
    try:
        read_number(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    except ValueError:
        return f"{path}: holds no number"
    return None
