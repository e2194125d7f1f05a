"""What the agent can be asked to do without a model of its own: look at the device, wait for it to cool down, try a bundle."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import time
from base64 import b64encode

from edgewise.agent import blocks, energy, machine, memory, sensors
from edgewise.agent.model import Call, Job, first_inference, import_runner, load, read_inputs
from edgewise.agent.protocol import Wire, hello

COOL_STEP_S = 1.0


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
    wire.send("facts", facts=machine.facts(job["packages"]), sensors=list(map(sensors.describe, found)), memory_limit=memory.available())


DEVICE_KINDS = {"probe": probe, "cool_down": cool_down, "bundle": bundle}


# What the agent can be asked to do with a model: one function for each kind of job (protocol.JOBS), each run in a process of its own.


def warmed_up(wire: Wire, job: Job) -> Call:
    runner = import_runner(wire, job)
    feeds = read_inputs(job)
    gc.disable()
    _, call = load(wire, runner, job, feeds)
    first_inference(wire, call)
    wire.send("warmup", **blocks.warm_up(call, job["warmup"]))
    return call


def latency(wire: Wire, job: Job) -> None:
    call, sources = warmed_up(wire, job), sensors.find(*blocks.BLOCK_QUANTITIES)
    for _ in range(job["blocks"]):
        gc.collect()
        wire.send("block", **blocks.block(call, job["block_s"], job["min_runs"], sources))


def latency_in_turns(wire: Wire, job: Job) -> None:
    """Each block waits for a line on stdin, and begins with a run that is not timed: the other model has used the caches meanwhile."""
    blocks.end_with_parent()
    sources = sensors.find(*blocks.BLOCK_QUANTITIES)
    call = warmed_up(wire, job)
    gc.collect()
    for number in range(job["blocks"]):
        wire.turns.acquire()
        call(number)
        wire.send("block", **blocks.block(call, job["block_s"], job["min_runs"], sources))


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
    wall_ns = [blocks.timed(call, i) for i in range(job["warmup_runs"] + job["runs"])]
    found = session.profile()
    for wall, operators in list(zip(wall_ns, found["runs"][1:]))[job["warmup_runs"] :]:  # [0]: the first inference
        wire.send("operators", wall_ns=wall, operators=operators)
    wire.send("trace", content=found["trace"])


def fits(wire: Wire, job: Job) -> None:
    hello(wire, {})
    wire.send("limited", **memory.run(job))


KINDS = {
    **DEVICE_KINDS,
    "latency": latency,
    "latency_in_turns": latency_in_turns,
    "pair": blocks.pair,
    "memory": memory_pass,
    "outputs": outputs,
    "energy": energy_pass,
    "profile": profile,
    "fits": fits,
}
