"""More threads than cores: a runtime's threads then wait for each other, and for some runtimes a run takes many times as long."""

import math
from collections.abc import Mapping
from typing import Any


def count_cores(facts: Mapping[str, Any]) -> int | None:
    """The cores that a process may use there at once, by its affinity and its quota. facts: of metrics/device.json. None: not known."""
    allowed, quota = facts.get("cores_allowed"), facts.get("cpu_quota_cores")
    known = [value for value in (allowed, math.ceil(quota) if quota else None) if value]
    return min(known, default=None)


def warn_of_threads(threads: int, facts: Mapping[str, Any], device: str) -> str | None:
    """What to set where the device has fewer cores than `threads`."""
    cores = count_cores(facts)
    if cores is None or threads <= cores:
        return None
    noun = "core" if cores == 1 else "cores"
    return (
        f"device.threads is {threads}, but {device} has {cores} {noun} for a process: threads that wait for each other can make a run many"
        f" times slower; set {name_choices(cores)}"
    )


def name_choices(cores: int) -> str:
    return "1" if cores == 1 else f"{cores} or 1"
