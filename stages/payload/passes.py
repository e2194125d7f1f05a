"""What the agent can be asked to do with a model: one function for each kind of job (protocol.JOBS), each run in a process of its own."""

from __future__ import annotations

import gc
import resource
from base64 import b64encode

from stages.payload import energy, errands, limits, memory, sensors, timing, turns
from stages.payload.model import Call, Job, first_inference, import_runner, load, read_inputs
from stages.payload.wire import Wire, hello


def warmed_up(wire: Wire, job: Job) -> Call:
    runner = import_runner(wire, job)
    feeds = read_inputs(job)
    gc.disable()
    _, call = load(wire, runner, job, feeds)
    first_inference(wire, call)
    wire.send("warmup", **timing.warm_up(call, job["warmup"]))
    return call


def latency(wire: Wire, job: Job) -> None:
    call, sources = warmed_up(wire, job), sensors.find(*timing.BLOCK_QUANTITIES)
    for _ in range(job["blocks"]):
        gc.collect()
        wire.send("block", **timing.block(call, job["block_s"], job["min_runs"], sources))


def latency_in_turns(wire: Wire, job: Job) -> None:
    """Each block waits for a line on stdin, and begins with a run that is not timed: the other model has used the caches meanwhile."""
    turns.end_with_parent()
    sources = sensors.find(*timing.BLOCK_QUANTITIES)
    call = warmed_up(wire, job)
    gc.collect()
    for number in range(job["blocks"]):
        wire.turns.acquire()
        call(number)
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


KINDS = {
    **errands.KINDS,
    "latency": latency,
    "latency_in_turns": latency_in_turns,
    "pair": turns.pair,
    "memory": memory_pass,
    "outputs": outputs,
    "energy": energy_pass,
    "profile": profile,
    "fits": fits,
}
