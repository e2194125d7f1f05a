"""What can be read of the machine: one file a kind of sensor, each with `find() -> list of Source`.

A file in this folder is found by its being here. `find` lists what this machine has; a source that exists and cannot be read
carries the reason in `problem`, so that "no permission" is never taken for "not there".
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional


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
    """Every source of these quantities on this machine."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [source for name in modules for source in importlib.import_module(__name__ + "." + name).find()]
    return [source for source in found if source.quantity in quantities]


def snapshot(sources: List[Source]) -> Dict[str, Optional[float]]:
    """The value of each source now; None for one that cannot be read or has gone."""
    return {source.name: _value(source) for source in sources}


def _value(source: Source) -> Optional[float]:
    try:
        return source.read()
    except (OSError, ValueError):  # unplugged, no permission, or not a number
        return None


def describe(source: Source) -> Dict[str, Any]:
    """All that the host must know of a source to make sense of its values."""
    return {field.name: getattr(source, field.name) for field in fields(source) if field.name != "read"}


def text(path: Path) -> str:
    """The text of a file of /sys; empty where there is none that can be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> float:
    """The one number in a file of /sys."""
    return float(path.read_text())


def trouble(path: Path) -> Optional[str]:
    """Why the one number of a file cannot be read; None where it can."""
    try:
        number(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    except ValueError:
        return f"{path}: holds no number"
    return None
