"""Power monitors below /sys/class/hwmon: INA2xx, INA3221 (Jetson, many carriers), and any driver with power or energy inputs.

An INA3221 gives millivolts and milliamperes of three channels; in4 to in6 are shunt voltages, and none of the three is known
by its number: the label tells which is the whole board.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Iterator, List

from edgewise.agent.sensors import Source, number, text, trouble

ROOT = Path("/sys/class/hwmon")
TOTAL_LABELS = ("VDD_IN", "POM_5V_IN")  # rails that feed everything else
INA3221_CHANNELS = (1, 2, 3)


def find() -> List[Source]:
    return [source for chip in sorted(ROOT.glob("hwmon*")) for source in _of_chip(chip)]


def _of_chip(chip: Path) -> Iterator[Source]:
    for path in sorted(chip.glob("power*_input")):
        yield _plain(chip, path, "power", "uw")
    for path in sorted(chip.glob("energy*_input")):
        yield _plain(chip, path, "energy", "uj")
    if text(chip / "name").startswith("ina3221"):
        yield from (_channel(chip, n) for n in INA3221_CHANNELS if (chip / f"curr{n}_input").exists())


def _name(chip: Path, label: str, unit: str) -> str:
    return f"{chip.name}_{text(chip / 'name') or 'unnamed'}_{label}_{unit}"


def _scope(label: str) -> str:
    return "board" if label in TOTAL_LABELS else label


def _plain(chip: Path, path: Path, quantity: str, unit: str) -> Source:
    stem = path.name[: -len("_input")]
    label = text(chip / f"{stem}_label") or stem
    counter = quantity == "energy"
    return Source(_name(chip, label, unit), quantity, partial(number, path), counter, scope=_scope(label), problem=trouble(path))


def _channel(chip: Path, n: int) -> Source:
    volts, amperes = chip / f"in{n}_input", chip / f"curr{n}_input"
    label = text(chip / f"in{n}_label") or f"channel{n}"
    problem = trouble(volts) or trouble(amperes)
    return Source(_name(chip, label, "uw"), "power", partial(_product, volts, amperes), scope=_scope(label), problem=problem)


def _product(millivolts: Path, milliamperes: Path) -> float:
    return number(millivolts) * number(milliamperes)
