"""What a Raspberry Pi's firmware tells through vcgencmd: throttling, and on a Pi 5 the power of its PMIC's rails."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import List, Optional

from edgewise.agent.sensors import Source

COMMAND = "vcgencmd"
TIMEOUT_S = 2.0
# "  VDD_CORE_A current(7)=1.23A" and "VDD_CORE_V volt(15)=0.72V"; older firmware pads the name and leaves out the number
READING = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\S*?=\s*([0-9.]+)[AV]\s*$", re.MULTILINE)


def find() -> List[Source]:
    if not shutil.which(COMMAND):
        return []
    sources = [Source("throttle_bits", "throttle", throttled_bits)]
    problem = _problem()
    if problem != "unsupported":
        sources.append(Source("pmic_rails_w", "power", pmic_w, scope="pmic rails, without USB and what hangs on 5 V", problem=problem))
    return sources


def _ask(*words: str) -> str:
    """The firmware's answer; OSError where it refuses or gives none."""
    try:
        answer = subprocess.run([COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S, text=True)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{COMMAND} {words[0]}: no answer") from error
    if answer.returncode or "error=" in answer.stdout:
        raise OSError(f"{COMMAND} {words[0]}: {answer.stdout.strip()[:100]}")
    return answer.stdout


def _problem() -> Optional[str]:
    try:
        pmic_w()
    except (OSError, ValueError) as error:
        return "unsupported" if "not registered" in str(error) else str(error)
    return None


def throttled_bits() -> float:
    """Bits 0-3: low voltage, capped, throttled, soft temperature limit, now; 16-19: the same at any time since boot."""
    found = re.search(r"throttled=(0x[0-9a-fA-F]+)", _ask("get_throttled"))
    if not found:
        raise ValueError("get_throttled gives no bits")
    return float(int(found.group(1), 16))


def pmic_w() -> float:
    """Volts times amperes over the rails that have both. EXT5V has no current, so what it feeds directly is not seen."""
    readings = {(rail, unit): float(value) for rail, unit, value in READING.findall(_ask("pmic_read_adc"))}
    rails = [volts * readings[rail, "A"] for (rail, unit), volts in readings.items() if unit == "V" and (rail, "A") in readings]
    if not rails:
        raise ValueError("pmic_read_adc gives no rail with volts and amperes")
    return sum(rails)
