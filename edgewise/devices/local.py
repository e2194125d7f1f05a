"""The machine that Edgewise runs on, as a device: each run of the agent is a fresh process."""

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
    cool_down_degc: float | None = option(
        None, "let the device cool down to this temperature before each run, if it has a sensor", low=20.0, high=110.0
    )
    cool_down_max_s: float = option(300.0, "time limit of that wait, seconds", low=0.0)


@contextlib.contextmanager
def connect(settings: Settings) -> Iterator["LocalDevice"]:
    yield LocalDevice()


class LocalDevice:
    """A plugins.Connection. command: starts the agent."""

    def __init__(self, command: tuple[str, ...] = COMMAND):
        self.command = command

    def reserve(self) -> contextlib.AbstractContextManager[None]:
        """Nothing to do: no other host measures here, and devices.access.lock holds back other processes."""
        return contextlib.nullcontext()

    def place(self, folder: Path) -> str:
        return str(folder.resolve())

    def run(self, job: Mapping[str, Any], deadline_s: float) -> Iterator[dict[str, Any]]:
        kills = count_oom_kills()

        def explain(ending: channel.ProcessEnd) -> Fault:
            if ending.code == -signal.SIGKILL and count_oom_kills() > kills:
                return Fault("oom_killed", f"the run ended with SIGKILL and the kernel counts {count_oom_kills() - kills} kill for memory")
            return channel.explain_end(ending)

        return channel.run_agent(self.command, job, deadline_s, explain, env=self.environment())

    def environment(self) -> dict[str, str]:
        """The environment of the agent: this process's, with Edgewise on PYTHONPATH."""
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


def count_oom_kills() -> int:
    """Number of processes that the kernel has killed for memory since boot; 0 on a kernel that does not count them."""
    found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0
