"""RAPL counters of Intel and AMD processors: microjoules of a package (or a part of it), not of the board.

Since 2020 only root may read them (CVE-2020-8694). They wrap at max_energy_range_uj, within minutes under load.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import List

from edgewise.agent.sensors import Source, number, text, trouble

ROOT = Path("/sys/class/powercap")
SCOPES = {"package": "package", "psys": "board"}  # the others (core, uncore, dram) are parts


def find() -> List[Source]:
    return [_source(zone) for zone in sorted(ROOT.glob("intel-rapl:*")) if (zone / "energy_uj").exists()]


def _source(zone: Path) -> Source:
    kind, path, limit = text(zone / "name") or "unnamed", zone / "energy_uj", zone / "max_energy_range_uj"
    return Source(
        name=f"rapl_{zone.name.partition(':')[2].replace(':', '.')}_{kind}_uj",
        quantity="energy",
        read=partial(number, path),
        counter=True,
        wraps_at=None if trouble(limit) else number(limit),
        scope=SCOPES.get(kind.partition("-")[0], kind),
        problem=trouble(path),
    )
