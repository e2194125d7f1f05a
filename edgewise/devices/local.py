"""The machine that Edgewise runs on, measured as any other device: the agent in a fresh process for each run."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.agent.protocol import Fault
from edgewise.config.settings import option
from edgewise.devices import channel

ROOT = Path(__file__).resolve().parents[2]
EMULATED = False
COMMAND = (sys.executable, "-m", "edgewise.agent.program")


@dataclass(frozen=True)
class Settings:
    threads: int = option(1, "threads that a runtime may use", low=1, high=1024)
    cool_down_degc: float | None = option(None, "wait for this temperature before each run, where one can be read", low=20.0, high=110.0)
    cool_down_max_s: float = option(300.0, "the longest such wait", low=0.0)


@contextlib.contextmanager
def connect(settings: Settings) -> Iterator["Local"]:
    yield Local()


class Local:
    """`command` starts the agent."""

    def __init__(self, command: tuple[str, ...] = COMMAND):
        self.command = command

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """devices.access sees to it: no other host measures here."""
        return contextlib.nullcontext()

    def place(self, folder: Path) -> str:
        return str(folder.resolve())

    def run(self, job: Mapping[str, Any], deadline_s: float) -> Iterator[dict[str, Any]]:
        kills = oom_kills()

        def explain(ending: channel.Ending) -> Fault:
            if ending.code == -signal.SIGKILL and oom_kills() > kills:
                return Fault("oom_killed", f"the run ended with SIGKILL and the kernel counts {oom_kills() - kills} kill for memory")
            return channel.explain(ending)

        return channel.converse(self.command, job, deadline_s, explain, env=self.environment())

    def environment(self) -> dict[str, str]:
        """What the agent finds in its environment; with it, the code."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


def oom_kills() -> int:
    """Processes that this kernel has killed for memory, in all control groups; 0 on a kernel that does not count them."""
    found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0
