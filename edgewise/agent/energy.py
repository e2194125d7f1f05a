"""What the energy sensors say over some seconds, while the device idles or runs a model. Raw values; the host integrates."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, List, Optional

from edgewise.agent import sensors

INTERVAL_S = 0.05  # twice the 10 Hz that a trapezoid over ten seconds wants


def record(sources: List[sensors.Source], seconds: float, call: Optional[Callable[[int], Any]] = None) -> Dict[str, Any]:
    """Times (ns, from 0) and the values of each source at them; `runs` is how often `call` ran to its end meanwhile."""
    at_ns: List[int] = []
    values: Dict[str, List[Optional[float]]] = {source.name: [] for source in sources}
    over = threading.Event()
    start = time.monotonic_ns()

    def take() -> None:
        at_ns.append(time.monotonic_ns() - start)
        for name, value in sensors.snapshot(sources).items():
            values[name].append(value)

    def watch() -> None:
        while not over.wait(INTERVAL_S):
            take()

    take()
    watcher = threading.Thread(target=watch)
    watcher.start()
    runs = _spend(seconds, call)
    over.set()
    watcher.join()
    take()
    return {"at_ns": at_ns, "values": values, "runs": runs}


def _spend(seconds: float, call: Optional[Callable[[int], Any]]) -> int:
    if call is None:
        time.sleep(seconds)
        return 0
    runs, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        call(runs)
        runs += 1
    return runs
