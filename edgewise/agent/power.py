"""Energy and power of the device: the sensors there are, and a recording of their raw values. The host integrates."""

from __future__ import annotations

import re
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

from edgewise.agent.sensors import VCGENCMD, Source, find_problem, read_number, read_text, run_vcgencmd, snapshot

INTERVAL_S = 0.05  # twice the 10 Hz that a trapezoid over ten seconds needs
BATTERIES = Path("/sys/class/power_supply")
HWMON = Path("/sys/class/hwmon")
RAPL = Path("/sys/class/powercap")
RAPL_SCOPES = {"package": "package", "psys": "board"}  # the others (core, uncore, dram) are parts
TOTAL_LABELS = ("VDD_IN", "POM_5V_IN")  # rails that feed everything else
INA3221_CHANNELS = (1, 2, 3)
# "  VDD_CORE_A current(7)=1.23A" and "VDD_CORE_V volt(15)=0.72V"; older firmware pads the name and leaves out the number
PMIC_READING = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\S*?=\s*([0-9.]+)[AV]\s*$", re.MULTILINE)


def find() -> List[Source]:
    """All sources of energy and power on this machine."""
    return [source for find_some in FINDERS for source in find_some()]


def record(sources: List[Source], seconds: float, call: Optional[Callable[[int], Any]] = None) -> Dict[str, Any]:
    """Read the sources every INTERVAL_S for some seconds, while `call` runs again and again or, without it, the device idles.

    Returns the times (ns, from 0), the values of each source at them, and how often `call` ran: fields of the event `energy`.
    """
    at_ns: List[int] = []
    values: Dict[str, List[Optional[float]]] = {source.name: [] for source in sources}
    stop = threading.Event()
    start = time.monotonic_ns()

    def read_all() -> None:
        at_ns.append(time.monotonic_ns() - start)
        for name, value in snapshot(sources).items():
            values[name].append(value)

    def keep_reading() -> None:
        while not stop.wait(INTERVAL_S):
            read_all()

    read_all()
    reader = threading.Thread(target=keep_reading)
    reader.start()
    runs = _run_for(seconds, call)
    stop.set()
    reader.join()
    read_all()
    return {"at_ns": at_ns, "values": values, "runs": runs}


def _run_for(seconds: float, call: Optional[Callable[[int], Any]]) -> int:
    if call is None:
        time.sleep(seconds)
        return 0
    runs, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        call(runs)
        runs += 1
    return runs


def find_batteries() -> List[Source]:
    """Gauges of batteries: the power of the whole device, known only while the battery discharges."""
    batteries = [supply for supply in sorted(BATTERIES.glob("*")) if read_text(supply / "type") == "Battery"]
    return [
        Source(f"{b.name}_uw", "power", partial(read_battery_uw, b), scope="device", problem=_find_battery_problem(b)) for b in batteries
    ]


def read_battery_uw(battery: Path) -> float:
    """Microwatts; some drivers count a discharge as negative. ValueError once the battery is being charged."""
    if read_text(battery / "status") != "Discharging":
        raise ValueError("the battery is not discharging")
    direct = battery / "power_now"
    return abs(
        read_number(direct) if direct.exists() else read_number(battery / "voltage_now") * read_number(battery / "current_now") / 1e6
    )


def _find_battery_problem(battery: Path) -> Optional[str]:
    status = read_text(battery / "status")
    if status != "Discharging":
        return f"{battery / 'status'}: {status or 'absent'}; a battery tells the device's power only while discharging"
    if (battery / "power_now").exists():
        return find_problem(battery / "power_now")
    return find_problem(battery / "voltage_now") or find_problem(battery / "current_now")


def find_power_monitors() -> List[Source]:
    """Power monitors in /sys/class/hwmon: INA2xx, INA3221 (Jetson, many carrier boards), and any driver with power or energy inputs.

    An INA3221 gives millivolts and milliamperes of three channels; in4 to in6 are shunt voltages. The label of a channel, not its
    number, tells which one is the whole board.
    """
    return [source for chip in sorted(HWMON.glob("hwmon*")) for source in _find_on_chip(chip)]


def _find_on_chip(chip: Path) -> Iterator[Source]:
    for path in sorted(chip.glob("power*_input")):
        yield _make_input_source(chip, path, "power", "uw")
    for path in sorted(chip.glob("energy*_input")):
        yield _make_input_source(chip, path, "energy", "uj")
    if read_text(chip / "name").startswith("ina3221"):
        yield from (_make_channel_source(chip, n) for n in INA3221_CHANNELS if (chip / f"curr{n}_input").exists())


def _make_input_source(chip: Path, path: Path, quantity: str, unit: str) -> Source:
    stem = path.name[: -len("_input")]
    label = read_text(chip / f"{stem}_label") or stem
    name, counter = _name_source(chip, label, unit), quantity == "energy"
    return Source(name, quantity, partial(read_number, path), counter, scope=_scope_of(label), problem=find_problem(path))


def _make_channel_source(chip: Path, n: int) -> Source:
    volts, amperes = chip / f"in{n}_input", chip / f"curr{n}_input"
    label = read_text(chip / f"in{n}_label") or f"channel{n}"
    read, problem = partial(_multiply, volts, amperes), find_problem(volts) or find_problem(amperes)
    return Source(_name_source(chip, label, "uw"), "power", read, scope=_scope_of(label), problem=problem)


def _multiply(millivolts: Path, milliamperes: Path) -> float:
    return read_number(millivolts) * read_number(milliamperes)


def _name_source(chip: Path, label: str, unit: str) -> str:
    return f"{chip.name}_{read_text(chip / 'name') or 'unnamed'}_{label}_{unit}"


def _scope_of(label: str) -> str:
    return "board" if label in TOTAL_LABELS else label


def find_pmic() -> List[Source]:
    """The power of a Raspberry Pi 5's rails, as its PMIC measures it; earlier boards do not have the command."""
    problem = _find_pmic_problem() if shutil.which(VCGENCMD) else "unsupported"
    if problem == "unsupported":
        return []
    return [Source("pmic_rails_w", "power", read_pmic_w, scope="pmic rails, without USB and other consumers of 5 V", problem=problem)]


def _find_pmic_problem() -> Optional[str]:
    try:
        read_pmic_w()
    except (OSError, ValueError) as error:
        return "unsupported" if "not registered" in str(error) else str(error)
    return None


def read_pmic_w() -> float:
    """Watts over the rails with both volts and amperes. EXT5V has no current, so what it feeds directly is not seen. ValueError without
    any such rail."""
    readings = {(rail, unit): float(value) for rail, unit, value in PMIC_READING.findall(run_vcgencmd("pmic_read_adc"))}
    rails = [volts * readings[rail, "A"] for (rail, unit), volts in readings.items() if unit == "V" and (rail, "A") in readings]
    if not rails:
        raise ValueError("pmic_read_adc gives no rail with volts and amperes")
    return sum(rails)


def find_rapl() -> List[Source]:
    """RAPL counters of Intel and AMD processors: microjoules of a package (or a part of it), not of the board.

    Since 2020 only root may read them (CVE-2020-8694). They wrap at max_energy_range_uj, within minutes under load.
    """
    return [_make_rapl_source(zone) for zone in sorted(RAPL.glob("intel-rapl:*")) if (zone / "energy_uj").exists()]


def _make_rapl_source(zone: Path) -> Source:
    kind, path, limit = read_text(zone / "name") or "unnamed", zone / "energy_uj", zone / "max_energy_range_uj"
    return Source(
        name=f"rapl_{zone.name.partition(':')[2].replace(':', '.')}_{kind}_uj",
        quantity="energy",
        read=partial(read_number, path),
        counter=True,
        wraps_at=None if find_problem(limit) else read_number(limit),
        scope=RAPL_SCOPES.get(kind.partition("-")[0], kind),
        problem=find_problem(path),
    )


FINDERS = (find_batteries, find_power_monitors, find_rapl, find_pmic)
