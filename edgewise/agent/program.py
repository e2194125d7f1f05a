"""The program on the device: reads one job on stdin, runs it, writes events on stdout (see protocol).

    python -m edgewise.agent.program < job

It reports raw samples; the host does the statistics. It exits at the end of stdin, so a lost link leaves nothing running, and at
its own deadline, even if the runtime hangs in native code. Standard library, numpy and the one runtime; Python 3.9.
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
from edgewise.agent.jobs import HANDLERS
from edgewise.agent.latency import ChildFailed
from edgewise.agent.protocol import EventStream


def main() -> None:
    stream = EventStream()
    faulthandler.enable()  # a crash in native code leaves its Python line on stderr
    try:
        job = protocol.check_job(json.loads(sys.stdin.buffer.readline()))
        faulthandler.dump_traceback_later(job["deadline_s"], exit=True)  # its own thread: needs no interpreter lock
        threading.Thread(target=watch_stdin, args=(stream,), daemon=True).start()
        HANDLERS[job["kind"]](stream, job)
        stream.send("done")
    except ChildFailed as error:
        stream.send("error", fault=error.fault, phase=error.phase, message=error.message)
    except Exception as error:  # reported to the host, which decides
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
        with contextlib.suppress(BrokenPipeError):  # the host is gone
            stream.send("error", fault=classify(error, stream.phase), phase=stream.phase, message=message)
    os._exit(0)  # some runtimes crash while the interpreter shuts down


def classify(error: Exception, phase: str) -> str:
    """The word of protocol.FAULTS for an exception. What the runtime raises once it has the file is blamed on the file."""
    if isinstance(error, ImportError):
        return "runtime_missing"
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return "out_of_memory"
    if isinstance(error, OSError):
        return "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "agent_error"
    return "model_rejected" if phase in ("load", "first inference", "run") else "agent_error"


def watch_stdin(stream: EventStream) -> None:
    """Release a turn for each line; exit when the host is gone."""
    for _ in iter(sys.stdin.buffer.readline, b""):
        stream.turns.release()
    os._exit(1)


if __name__ == "__main__":
    main()
