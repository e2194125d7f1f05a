"""Thermal zones of the kernel. The type of a zone tells what it measures (cpu-thermal, x86_pkg_temp ...)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import List

from edgewise.agent.sensors import Source, number, text, trouble

ROOT = Path("/sys/class/thermal")


def find() -> List[Source]:
    return [_source(zone) for zone in sorted(ROOT.glob("thermal_zone*"))]


def _source(zone: Path) -> Source:
    kind = text(zone / "type") or "unnamed"
    path = zone / "temp"
    return Source(f"{zone.name}_{kind}_mdegc", "temperature", partial(number, path), problem=trouble(path))
