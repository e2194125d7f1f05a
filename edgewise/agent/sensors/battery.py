"""A battery's own gauge: the power of the whole device, true only while the battery feeds it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import List, Optional

from edgewise.agent.sensors import Source, number, text, trouble

ROOT = Path("/sys/class/power_supply")


def find() -> List[Source]:
    batteries = [supply for supply in sorted(ROOT.glob("*")) if text(supply / "type") == "Battery"]
    return [Source(f"{b.name}_uw", "power", partial(power_uw, b), scope="device", problem=_problem(b)) for b in batteries]


def _problem(battery: Path) -> Optional[str]:
    status = text(battery / "status")
    if status != "Discharging":
        return f"{battery / 'status'}: {status or 'absent'}; a battery tells the device's power only while discharging"
    if (battery / "power_now").exists():
        return trouble(battery / "power_now")
    return trouble(battery / "voltage_now") or trouble(battery / "current_now")


def power_uw(battery: Path) -> float:
    """Microwatts; some drivers count a discharge as negative. ValueError once the battery is being charged."""
    if text(battery / "status") != "Discharging":
        raise ValueError("the battery is not discharging")
    direct = battery / "power_now"
    return abs(number(direct) if direct.exists() else number(battery / "voltage_now") * number(battery / "current_now") / 1e6)
