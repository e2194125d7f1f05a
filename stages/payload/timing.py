"""Warm-up and timed blocks: raw wall, processor and waiting time of every run."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

from stages.payload import sensors

Call = Callable[[int], Any]  # runs the model on the sample of that number
BLOCK_QUANTITIES = ("pressure", "steal", "switches", "faults", "frequency", "temperature", "throttle")
SETTLED_RUNS = 10  # the warm-up looks at the spread of so many


def timed(call: Call, sample: int) -> int:
    """Wall time of one run, ns."""
    start = time.perf_counter_ns()
    call(sample)
    return time.perf_counter_ns() - start


def warm_up(call: Call, limits: Mapping[str, float]) -> Dict[str, Any]:
    """At least min_runs and min_s, then until the spread of the last runs settles or max_s is over."""
    start = time.perf_counter()
    wall_ns: List[int] = []
    while True:
        wall_ns.append(timed(call, len(wall_ns)))
        last, spent = sorted(wall_ns[-SETTLED_RUNS:]), time.perf_counter() - start
        if len(wall_ns) < limits["min_runs"] or spent < limits["min_s"]:
            continue
        steady = len(last) == SETTLED_RUNS and last[-1] - last[0] < limits["spread"] * last[SETTLED_RUNS // 2]
        if steady or spent >= limits["max_s"]:
            return {"wall_ns": wall_ns, "steady": steady}


@contextlib.contextmanager
def waiting_clock() -> Iterator[Optional[Callable[[], int]]]:
    """Reads how long this thread has waited in the run queue, ns (second number of schedstat); None on a kernel without."""
    try:
        handle = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        yield None
        return
    try:
        yield lambda: int(os.pread(handle, 96, 0).split()[1])
    finally:
        os.close(handle)


def block(call: Call, block_s: float, min_runs: int, sources: List[sensors.Source]) -> Dict[str, Any]:
    """At least block_s and min_runs of timed runs. What is read between two runs is outside of their wall time."""
    with waiting_clock() as waited:
        before = sensors.snapshot(sources)
        times = timed_runs(call, block_s, min_runs, waited)
        return {**times, "before": before, "after": sensors.snapshot(sources)}


def timed_runs(call: Call, block_s: float, min_runs: int, waited: Optional[Callable[[], int]]) -> Dict[str, Any]:
    """wall_ns, cpu_ns and wait_ns of each run; wait_ns is None without a clock for it."""
    wall_clock, cpu_clock = time.perf_counter_ns, time.process_time_ns
    wall_ns: List[int] = []
    cpu_ns: List[int] = []
    wait_ns: List[int] = []
    end = wall_clock() + int(block_s * 1e9)
    wait_before = waited() if waited else 0
    while len(wall_ns) < max(1, min_runs) or wall_clock() < end:
        cpu_start, start = cpu_clock(), wall_clock()
        call(len(wall_ns))
        wall_ns.append(wall_clock() - start)
        cpu_ns.append(cpu_clock() - cpu_start)
        wait_after = waited() if waited else 0
        wait_ns.append(wait_after - wait_before)
        wait_before = wait_after
    return {"wall_ns": wall_ns, "cpu_ns": cpu_ns, "wait_ns": wait_ns if waited else None}
