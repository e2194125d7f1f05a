"""What the agent can be asked to do: one function for each kind of job (protocol.JOBS), each run in a process of its own."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import time
from base64 import b64encode

from stages.payload import energy, hostinfo, limits, memory, sensors, timing
from stages.payload.model import Job, first_inference, import_runner, load, read_inputs
from stages.payload.wire import Wire, hello

COOL_STEP_S = 1.0


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


def profile(wire: Wire, job: Job) -> None:
    """What each of the last `runs` runs spent its time on, as the runtime tells. The runner is a format's profile.py."""
    runner = import_runner(wire, job)
    session, call = load(wire, runner, job, read_inputs(job))
    first_inference(wire, call)
    wall_ns = [timing.timed(call, i) for i in range(job["warmup_runs"] + job["runs"])]
    found = session.profile()
    for wall, operators in list(zip(wall_ns, found["runs"][1:]))[job["warmup_runs"] :]:  # [0]: the first inference
        wire.send("operators", wall_ns=wall, operators=operators)
    wire.send("trace", content=found["trace"])


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


def bundle(wire: Wire, job: Job) -> None:
    """A bundle's own program, run as its user will run it."""
    hello(wire, {})
    command = [sys.executable, os.path.join(job["bundle"], "infer.py"), *job["arguments"]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=job["deadline_s"])
    texts = {"stdout": done.stdout.decode(errors="replace"), "stderr": done.stderr.decode(errors="replace")}
    wire.send("bundle", code=abs(done.returncode), **texts)


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
    "profile": profile,
    "cool_down": cool_down,
    "fits": fits,
    "bundle": bundle,
}
