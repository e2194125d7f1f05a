"""The program on the device: reads one job on stdin, runs it, writes events on stdout (see protocol).

    python -m edgewise.agent.program < job

It reports raw samples; the host does the statistics. It ends at the end of stdin, so a lost link leaves nothing running, and at
its own deadline, even where the runtime hangs inside native code. Standard library, numpy and the one runtime; Python 3.9.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import json
import os
import sys
import threading

from edgewise.agent import protocol
from edgewise.agent.blocks import Refused
from edgewise.agent.jobs import KINDS
from edgewise.agent.protocol import Wire


def fault_of(error: Exception, phase: str) -> str:
    """Which word of faults.FAULTS an exception is. What the runtime itself raises while it has the file is about the file."""
    if isinstance(error, ImportError):
        return "runtime_missing"
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return "out_of_memory"
    if isinstance(error, OSError):
        return "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "agent_error"
    return "model_rejected" if phase in ("load", "first inference", "run") else "agent_error"


def watch_stdin(wire: Wire) -> None:
    """Count the turns that come; leave when the host is gone."""
    for _ in iter(sys.stdin.buffer.readline, b""):
        wire.turns.release()
    os._exit(1)


def main() -> None:
    wire = Wire()
    faulthandler.enable()  # a crash in native code leaves its Python line on stderr
    try:
        job = protocol.check_job(json.loads(sys.stdin.buffer.readline()))
        faulthandler.dump_traceback_later(job["deadline_s"], exit=True)  # its own thread: needs no interpreter lock
        threading.Thread(target=watch_stdin, args=(wire,), daemon=True).start()
        KINDS[job["kind"]](wire, job)
        wire.send("done")
    except Refused as error:
        wire.send("error", fault=error.fault, phase=error.phase, message=error.message)
    except Exception as error:  # reported whole to the host, which decides
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
        with contextlib.suppress(BrokenPipeError):  # the host has gone: nobody is left to be told
            wire.send("error", fault=fault_of(error, wire.phase), phase=wire.phase, message=message)
    os._exit(0)  # some runtimes crash while the interpreter shuts down


if __name__ == "__main__":
    main()
