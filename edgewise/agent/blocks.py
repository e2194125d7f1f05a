"""Warm-up and timed blocks: raw wall, processor and waiting time of every run."""

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
from edgewise.agent.protocol import Wire, hello

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


# Two models on one device that take turns: each is loaded in a process of its own, then a block of the one, a block of the other.
#
# Blocks that lie some ten milliseconds apart find the same machine, so that what its neighbours do to it cancels in their ratio. Whoever
# is not at turn is stopped by the kernel: no thread of its runtime spins meanwhile.

KIND = "latency_in_turns"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Refused(Exception):
    """One of the two has ended with an error of its own."""

    def __init__(self, event: Mapping[str, Any]):
        super().__init__(event["message"])
        self.fault, self.phase, self.message = event["fault"], event["phase"], event["message"]


def end_with_parent() -> None:
    """A stopped process does not notice the end of its stdin; the kernel is to kill it when its parent is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Player:
    """The process of one model; between its turns it stands still."""

    def __init__(self, job: Mapping[str, Any], deadline_s: float):
        fields = {name: job[name] for name in protocol.JOBS[KIND]}
        self.process = subprocess.Popen(AGENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines: List[str] = []
        self._tell(protocol.job_line(kind=KIND, deadline_s=deadline_s, **fields))
        self._until("warmup")
        self._stop()

    def turn(self) -> None:
        self._signal(signal.SIGCONT)
        self._tell(b"\n")
        self._until("block")
        self._stop()

    def finish(self) -> None:
        self._signal(signal.SIGCONT)
        self._until("done")

    def _signal(self, number: int) -> None:
        os.kill(self.process.pid, number)  # Popen.send_signal would also reap it where it has ended

    def _stop(self) -> None:
        """Return when it stands, with all of its threads, or has ended."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _tell(self, line: bytes) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended; how, is seen when its lines come to an end
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _until(self, last: str) -> None:
        """Keep its lines up to the event `last`."""
        assert self.process.stdout
        for line in self.process.stdout:
            if not line.endswith(b"\n"):
                break  # it has ended within it
            event = json.loads(line)
            self.lines.append(line.decode().rstrip("\n"))
            if event["event"] == "error":
                raise Refused(event)
            if event["event"] == last:
                return
        end_like(self.process.wait())


def end_like(code: int) -> None:
    """End as the other process did, so that the host sees the same signal, exit code and count of kills as if it had run alone."""
    faulthandler.disable()
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code or 1)


def pair(wire: Wire, job: Mapping[str, Any]) -> None:
    """The two jobs of `sides`, in A B B A from block to block. Their lines are sent at the end, for nothing is to work beside a block."""
    hello(wire, {})
    wire.phase = "turns"
    players = [Player(side, job["deadline_s"]) for side in job["sides"]]  # the one waits, stopped, while the other loads
    for number in range(job["blocks"]):
        for player in players if number % 2 == 0 else players[::-1]:
            player.turn()
    for index, player in enumerate(players):
        player.finish()
        for line in player.lines:
            wire.send("side", index=index, line=line)
