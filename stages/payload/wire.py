"""The agent's way to the host and back: events, each with its number (see protocol)."""

from __future__ import annotations

import os
import platform
import sys
import threading
from typing import Any, Mapping

from stages.payload import protocol


class Wire:
    """The way to the host. Whatever native code or a runtime prints on stdout goes to stderr from here on."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._count = 0
        self.phase = "start"
        self.turns = threading.Semaphore(0)  # one for each line of stdin after the job

    def send(self, event: str, **fields: Any) -> None:
        self._stream.write(protocol.event_line(self._count, event, fields))
        self._stream.flush()
        self._count += 1


def hello(wire: Wire, versions: Mapping[str, str]) -> None:
    """Who answers: versions, and every package outside of the standard library that has been imported."""
    files = {name.split(".")[0]: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    outside = {name for name, file in files.items() if "-packages" in file and not name.startswith("_")}  # _: what .pth files load
    wire.send(
        "hello",
        schema=protocol.SCHEMA,
        python=platform.python_version(),
        versions=dict(versions),
        modules=sorted(outside),
        cpus=sorted(os.sched_getaffinity(0)),
    )
