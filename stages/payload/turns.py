"""Two models on one device that take turns: each is loaded in a process of its own, then a block of the one, a block of the other.

Blocks that lie some ten milliseconds apart find the same machine, so that what its neighbours do to it cancels in their ratio. Whoever
is not at turn is stopped by the kernel: no thread of its runtime spins meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import subprocess
from typing import Any, List, Mapping

from stages.payload import protocol
from stages.payload.limits import AGENT
from stages.payload.wire import Wire, hello

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
