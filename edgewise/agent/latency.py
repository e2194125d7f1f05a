"""Measure latency on the device: a warm-up, then blocks of timed runs; for a pair of models, blocks in turns.

Two models that take turns are each loaded in a process of their own and run in the order A B B A, block by block. Blocks that lie some
ten milliseconds apart see the same machine, so whatever its neighbours do to it cancels in their ratio. The process that waits is
stopped by the kernel (SIGSTOP): no thread of its runtime spins meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

from edgewise.agent import protocol, sensors
from edgewise.agent.memory import AGENT
from edgewise.agent.protocol import EventStream, send_hello

Call = Callable[[int], Any]  # runs the model on the sample of that number
BLOCK_QUANTITIES = ("pressure", "steal", "switches", "faults", "frequency", "temperature", "throttle")
SETTLED_RUNS = 10  # the warm-up compares the last ten runs
IN_TURNS = "latency_in_turns"  # the job that each process of a pair gets
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def warm_up(call: Call, limits: Mapping[str, float]) -> Dict[str, Any]:
    """Run at least min_runs and min_s, then until the last runs differ by less than `spread` of their median, or max_s is over."""
    start = time.perf_counter()
    wall_ns: List[int] = []
    while True:
        wall_ns.append(time_run(call, len(wall_ns)))
        last, spent = sorted(wall_ns[-SETTLED_RUNS:]), time.perf_counter() - start
        if len(wall_ns) < limits["min_runs"] or spent < limits["min_s"]:
            continue
        steady = len(last) == SETTLED_RUNS and last[-1] - last[0] < limits["spread"] * last[SETTLED_RUNS // 2]
        if steady or spent >= limits["max_s"]:
            return {"wall_ns": wall_ns, "steady": steady}


def time_run(call: Call, sample: int) -> int:
    """Wall time of one run, ns."""
    start = time.perf_counter_ns()
    call(sample)
    return time.perf_counter_ns() - start


def measure_block(call: Call, block_s: float, min_runs: int, sources: List[sensors.Source]) -> Dict[str, Any]:
    """Time runs for at least block_s seconds and min_runs runs; the sensors are read before and after. Fields of the event `block`."""
    with open_wait_clock() as waited_ns:
        before = sensors.snapshot(sources)
        times = time_runs(call, block_s, min_runs, waited_ns)
        return {**times, "before": before, "after": sensors.snapshot(sources)}


@contextlib.contextmanager
def open_wait_clock() -> Iterator[Optional[Callable[[], int]]]:
    """A function that returns how long this thread has waited in the run queue, ns: the second number of /proc/thread-self/schedstat
    (kernel documentation, scheduler/sched-stats). None on a kernel without it."""
    try:
        handle = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        yield None
        return
    try:
        yield lambda: int(os.pread(handle, 96, 0).split()[1])
    finally:
        os.close(handle)


def time_runs(call: Call, block_s: float, min_runs: int, waited_ns: Optional[Callable[[], int]]) -> Dict[str, Any]:
    """wall_ns, cpu_ns and wait_ns of each run; wait_ns is None without a clock for it. Clocks are read outside of the wall time."""
    wall_clock, cpu_clock = time.perf_counter_ns, time.process_time_ns
    wall_ns: List[int] = []
    cpu_ns: List[int] = []
    wait_ns: List[int] = []
    end = wall_clock() + int(block_s * 1e9)
    wait_before = waited_ns() if waited_ns else 0
    while len(wall_ns) < max(1, min_runs) or wall_clock() < end:
        cpu_start, start = cpu_clock(), wall_clock()
        call(len(wall_ns))
        wall_ns.append(wall_clock() - start)
        cpu_ns.append(cpu_clock() - cpu_start)
        wait_after = waited_ns() if waited_ns else 0
        wait_ns.append(wait_after - wait_before)
        wait_before = wait_after
    return {"wall_ns": wall_ns, "cpu_ns": cpu_ns, "wait_ns": wait_ns if waited_ns else None}


def run_in_turns(stream: EventStream, job: Mapping[str, Any]) -> None:
    """Run the two jobs of `sides` in the order A B B A from block to block. Their events are sent at the end, so that nothing runs
    beside a block."""
    send_hello(stream, {})
    stream.phase = "turns"
    processes = [TurnProcess(side, job["deadline_s"]) for side in job["sides"]]  # the first is stopped while the second loads
    for number in range(job["blocks"]):
        for process in processes if number % 2 == 0 else processes[::-1]:
            process.run_block()
    for index, process in enumerate(processes):
        process.finish()
        for line in process.lines:
            stream.send("side", index=index, line=line)


class ChildFailed(Exception):
    """One process of a pair sent the event `error`."""

    def __init__(self, event: Mapping[str, Any]):
        super().__init__(event["message"])
        self.fault, self.phase, self.message = event["fault"], event["phase"], event["message"]


class TurnProcess:
    """An agent process for one model of a pair, stopped between its blocks. `lines` holds its events as they came.

    job: of the side; `python` in it names another interpreter than that of this process."""

    def __init__(self, job: Mapping[str, Any], deadline_s: float):
        fields = {name: job[name] for name in protocol.JOBS[IN_TURNS]}
        command = (job["python"], *AGENT[1:]) if job.get("python") else AGENT
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines: List[str] = []
        self._write(protocol.encode_job(kind=IN_TURNS, deadline_s=deadline_s, **fields))
        self._read_until("warmup")
        self._stop()

    def run_block(self) -> None:
        self._signal(signal.SIGCONT)
        self._write(b"\n")
        self._read_until("block")
        self._stop()

    def finish(self) -> None:
        self._signal(signal.SIGCONT)
        self._read_until("done")

    def _signal(self, number: int) -> None:
        os.kill(self.process.pid, number)  # Popen.send_signal would also reap a process that has ended

    def _stop(self) -> None:
        """Return when all threads of the process are stopped, or it has ended."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _write(self, line: bytes) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended; `_read_until` sees how
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _read_until(self, last: str) -> None:
        """Keep the lines up to the event `last`. ChildFailed for an error event; where the process ends, this one ends the same way."""
        assert self.process.stdout
        for line in self.process.stdout:
            if not line.endswith(b"\n"):
                break  # it ended in the middle of the line
            event = json.loads(line)
            self.lines.append(line.decode().rstrip("\n"))
            if event["event"] == "error":
                raise ChildFailed(event)
            if event["event"] == last:
                return
        exit_like(self.process.wait())


def exit_like(code: int) -> None:
    """End as the child did, so that the host sees the same signal, exit code and kill count as if the child had run by itself."""
    faulthandler.disable()
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code or 1)


def kill_with_parent() -> None:
    """Have the kernel kill this process when its parent ends: a stopped process does not notice the end of its stdin."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
