"""The program on the device: reads one job on stdin, runs it, writes events on stdout (see protocol).

    python -m stages.payload.agent < job

It reports raw samples; the host does the statistics. It ends at the end of stdin, so a lost link leaves nothing running, and at
its own deadline, even where the runtime hangs inside native code. Standard library, numpy and the one runtime; Python 3.9.
"""

from __future__ import annotations

import errno
import faulthandler
import gc
import importlib
import json
import os
import platform
import resource
import sys
import threading
import time
from base64 import b64encode
from typing import Any, Callable, Dict, List, Mapping, Tuple

from stages.payload import energy, hostinfo, limits, memory, protocol, sensors, timing

COOL_STEP_S = 1.0
Job = Mapping[str, Any]
Call = Callable[[int], Any]  # runs the model on the sample of that number


class Wire:
    """The way to the host. Whatever native code or a runtime prints on stdout goes to stderr from here on."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._count = 0
        self.phase = "start"

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


def import_runner(wire: Wire, job: Job) -> Any:
    """formats/F/run.py and the runtime behind it, both imported before anything is measured."""
    wire.phase = "import"
    package = "numpy"  # all that a run.py itself needs
    try:
        runner = importlib.import_module(job["runner"])
        package = runner.PACKAGE
        importlib.import_module(runner.RUNTIME)
    except ImportError as error:
        raise ImportError(f"{error}; on the device: {sys.executable} -m pip install {package}") from error
    hello(wire, runner.versions())
    return runner


def read_inputs(job: Job) -> List[Dict[str, Any]]:
    """One feed of batch 1 for each stored sample. end_to_end: the raw picture, uint8 [1, h, w, c]."""
    import numpy as np

    with np.load(job["inputs"]) as stored:
        arrays = {name: stored[name] for name in stored.files}
    count = len(next(iter(arrays.values())))
    return [{name: np.ascontiguousarray(array[i : i + 1]) for name, array in arrays.items()} for i in range(count)]


def make_call(session: Any, job: Job, feeds: List[Dict[str, Any]]) -> Call:
    if job["scope"] == "model":
        return lambda i: session.run(feeds[i % len(feeds)])
    from stages.payload import preprocess

    spec = job["preprocessing"]

    def end_to_end(i: int) -> Dict[str, Any]:
        raw = feeds[i % len(feeds)]
        outputs = session.run({name: preprocess.normalize(preprocess.fit(array[0], spec)[None], spec) for name, array in raw.items()})
        return {name: array.argmax(axis=-1) for name, array in outputs.items()}

    return end_to_end


def load(wire: Wire, runner: Any, job: Job, feeds: List[Dict[str, Any]]) -> Tuple[Any, Call]:
    wire.phase = "load"
    start = time.perf_counter_ns()
    session = runner.load(job["model"], job["settings"])
    wire.send("loaded", wall_ns=time.perf_counter_ns() - start)
    return session, make_call(session, job, feeds)


def first_inference(wire: Wire, call: Call) -> None:
    wire.phase = "first inference"
    start = time.perf_counter_ns()
    call(0)
    wire.send("first_inference", wall_ns=time.perf_counter_ns() - start)
    wire.phase = "run"


def latency(wire: Wire, job: Job) -> None:
    runner = import_runner(wire, job)
    feeds = read_inputs(job)
    gc.disable()
    _, call = load(wire, runner, job, feeds)
    first_inference(wire, call)
    wire.send("warmup", **timing.warm_up(call, job["warmup"]))
    sources = sensors.find(*timing.BLOCK_QUANTITIES)
    for _ in range(job["blocks"]):
        gc.collect()
        wire.send("block", **timing.block(call, job["block_s"], job["min_runs"], sources))


def memory_pass(wire: Wire, job: Job) -> None:
    """Marks after the imports (with the peak reset), the load, the first inference, `runs` more, and the release."""
    runner = import_runner(wire, job)
    feeds = read_inputs(job)
    gc.collect()
    reset = memory.reset_peak()

    def mark(name: str) -> None:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        wire.send("memory", mark=name, bytes=memory.marks(), peak_reset=reset, major_faults=faults)

    mark("baseline")
    session, call = load(wire, runner, job, feeds)
    mark("load")
    first_inference(wire, call)
    mark("first_inference")
    for i in range(job["runs"]):
        call(i)
    mark("runs")
    del session, call
    gc.collect()
    mark("release")


def outputs(wire: Wire, job: Job) -> None:
    """What the model answers here for each stored sample: little-endian bytes in base64, with dtype and shape."""
    runner = import_runner(wire, job)
    feeds = read_inputs(job)
    _, call = load(wire, runner, job, feeds)
    wire.phase = "run"
    for i in range(len(feeds)):
        arrays = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in call(i).items()}
        packed = {n: {"dtype": a.dtype.str, "shape": list(a.shape), "base64": b64encode(a.tobytes()).decode()} for n, a in arrays.items()}
        wire.send("outputs", index=i, arrays=packed)


def energy_pass(wire: Wire, job: Job) -> None:
    """Which energy sensors there are; where one can be read, what it says while idle and while the model runs."""
    runner = import_runner(wire, job)
    sources = sensors.find("energy", "power")
    wire.send("sources", sources=[sensors.describe(source) for source in sources])
    readable = [source for source in sources if not source.problem]
    if readable:
        _, call = load(wire, runner, job, read_inputs(job))
        first_inference(wire, call)
        wire.send("energy", phase="idle", **energy.record(readable, job["seconds"]))
        wire.send("energy", phase="load", **energy.record(readable, job["seconds"], call))


def fits(wire: Wire, job: Job) -> None:
    hello(wire, {})
    wire.send("limited", **limits.run(job))


def cool_down(wire: Wire, job: Job) -> None:
    """Wait until the hottest sensor is at or below a limit, or the time is over; null where there is no temperature."""
    hello(wire, {})
    sources, start = sensors.find("temperature"), time.monotonic()
    while True:
        hottest = max((value for value in sensors.snapshot(sources).values() if value is not None), default=None)
        waited_s = time.monotonic() - start
        if hottest is None or hottest <= 1000 * job["below_degc"] or waited_s >= job["max_s"]:
            return wire.send("cooled", waited_s=waited_s, hottest_mdegc=hottest)
        time.sleep(COOL_STEP_S)


def probe(wire: Wire, job: Job) -> None:
    hello(wire, {})
    found = sensors.find("temperature", "frequency", "throttle", "energy", "power")
    wire.send("facts", facts=hostinfo.facts(job["packages"]), sensors=list(map(sensors.describe, found)), memory_limit=limits.available())


KINDS = {
    "probe": probe,
    "latency": latency,
    "memory": memory_pass,
    "outputs": outputs,
    "energy": energy_pass,
    "cool_down": cool_down,
    "fits": fits,
}


def fault_of(error: Exception, phase: str) -> str:
    """Which word of protocol.FAULTS an exception is. What the runtime itself raises while it has the file is about the file."""
    if isinstance(error, ImportError):
        return "runtime_missing"
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return "out_of_memory"
    if isinstance(error, OSError):
        return "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "agent_error"
    return "model_rejected" if phase in ("load", "first inference", "run") else "agent_error"


def watch_stdin() -> None:
    """Leave when the host is gone."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(1)


def main() -> None:
    wire = Wire()
    faulthandler.enable()  # a crash in native code leaves its Python line on stderr
    try:
        job = protocol.check_job(json.loads(sys.stdin.buffer.readline()))
        faulthandler.dump_traceback_later(job["deadline_s"], exit=True)  # its own thread: needs no interpreter lock
        threading.Thread(target=watch_stdin, daemon=True).start()
        KINDS[job["kind"]](wire, job)
        wire.send("done")
    except Exception as error:  # reported whole to the host, which decides
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
        wire.send("error", fault=fault_of(error, wire.phase), phase=wire.phase, message=message)
    os._exit(0)  # some runtimes crash while the interpreter shuts down


if __name__ == "__main__":
    main()
