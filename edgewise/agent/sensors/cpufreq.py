"""The frequency that each processor runs at, as the kernel reports it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import List

from edgewise.agent.sensors import Source, number, trouble

ROOT = Path("/sys/devices/system/cpu")


def find() -> List[Source]:
    paths = sorted(ROOT.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    return [Source(f"{path.parts[-3]}_khz", "frequency", partial(number, path), problem=trouble(path)) for path in paths]
