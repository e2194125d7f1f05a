"""What the agent can be asked to do: one function for each kind of job (protocol.JOBS), each run in a process of its own."""

from __future__ import annotations

import gc
import importlib
import os
import resource
import subprocess
import sys
import time
from base64 import b64encode
from typing import Any, Callable, Dict, List, Mapping, Tuple

from edgewise.agent import latency, machine, memory, packages, power, sensors
from edgewise.agent.protocol import EventStream, send_hello

SESSIONS = "edgewise.agent.sessions"  # imported late: it needs numpy, and a missing numpy must be reported in an event
COOL_STEP_S = 1.0
Job = Mapping[str, Any]
Call = Callable[[int], Any]  # runs the model on the sample of that number


def probe_device(stream: EventStream, job: Job) -> None:
    """Stable facts of the machine, its sensors, and how a memory limit can be set on it."""
    send_hello(stream, {})
    found = [*sensors.find("temperature", "frequency", "throttle"), *power.find()]
    facts, limits = machine.facts(job["packages"]), memory.available_method()
    stream.send("facts", facts=facts, sensors=[sensors.describe(source) for source in found], memory_limit=limits)


def cool_down(stream: EventStream, job: Job) -> None:
    """Wait until the hottest sensor is at or below a limit, or the time is over. `hottest_mdegc` is null without a temperature sensor."""
    send_hello(stream, {})
    sources, start = sensors.find("temperature"), time.monotonic()
    while True:
        hottest = max((value for value in sensors.snapshot(sources).values() if value is not None), default=None)
        waited_s = time.monotonic() - start
        if hottest is None or hottest <= 1000 * job["below_degc"] or waited_s >= job["max_s"]:
            return stream.send("cooled", waited_s=waited_s, hottest_mdegc=hottest)
        time.sleep(COOL_STEP_S)


def run_bundle(stream: EventStream, job: Job) -> None:
    """Run a bundle's own program, as its user will run it."""
    send_hello(stream, {})
    command = [sys.executable, os.path.join(job["bundle"], "infer.py"), *job["arguments"]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=job["deadline_s"])
    texts = {"stdout": done.stdout.decode(errors="replace"), "stderr": done.stderr.decode(errors="replace")}
    stream.send("bundle", code=abs(done.returncode), **texts)


def measure_latency(stream: EventStream, job: Job) -> None:
    call, sources = warm_up_model(stream, job), sensors.find(*latency.BLOCK_QUANTITIES)
    for _ in range(job["blocks"]):
        gc.collect()
        stream.send("block", **latency.measure_block(call, job["block_s"], job["min_runs"], sources))


def measure_latency_in_turns(stream: EventStream, job: Job) -> None:
    """Each block waits for a line on stdin, and begins with an untimed run, since the other model has used the caches meanwhile."""
    latency.kill_with_parent()
    sources = sensors.find(*latency.BLOCK_QUANTITIES)
    call = warm_up_model(stream, job)
    gc.collect()
    for number in range(job["blocks"]):
        stream.turns.acquire()
        call(number)
        stream.send("block", **latency.measure_block(call, job["block_s"], job["min_runs"], sources))


def measure_memory(stream: EventStream, job: Job) -> None:
    """Memory in use after the imports (with the peak reset), the load, the first inference, `runs` more, and the release."""
    runner = import_runner(stream, job)
    feeds = read_inputs(job)
    gc.collect()
    reset = memory.reset_peak()

    def send_usage(mark: str) -> None:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        stream.send("memory", mark=mark, bytes=memory.read_usage(), peak_reset=reset, major_faults=faults)

    send_usage("baseline")
    session, call = load_model(stream, runner, job, feeds)
    send_usage("load")
    run_first_inference(stream, call)
    send_usage("first_inference")
    for i in range(job["runs"]):
        call(i)
    send_usage("runs")
    del session, call
    gc.collect()
    send_usage("release")


def compute_outputs(stream: EventStream, job: Job) -> None:
    """The model's outputs for each stored sample: little-endian bytes in base64, with dtype and shape."""
    runner = import_runner(stream, job)
    feeds = read_inputs(job)
    _, call = load_model(stream, runner, job, feeds)
    stream.phase = "run"
    for i in range(len(feeds)):
        arrays = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in call(i).items()}
        packed = {n: {"dtype": a.dtype.str, "shape": list(a.shape), "base64": b64encode(a.tobytes()).decode()} for n, a in arrays.items()}
        stream.send("outputs", index=i, arrays=packed)


def measure_energy(stream: EventStream, job: Job) -> None:
    """The energy sensors; if one can be read, its values while the device idles and while the model runs."""
    runner = import_runner(stream, job)
    sources = power.find()
    stream.send("sources", sources=[sensors.describe(source) for source in sources])
    readable = [source for source in sources if not source.problem]
    if readable:
        _, call = load_model(stream, runner, job, read_inputs(job))
        run_first_inference(stream, call)
        stream.send("energy", phase="idle", **power.record(readable, job["seconds"]))
        stream.send("energy", phase="load", **power.record(readable, job["seconds"], call))


def profile_operators(stream: EventStream, job: Job) -> None:
    """The time of each operator in each of the last `runs` runs, as the runtime reports it. The runner is a format's profile.py."""
    runner = import_runner(stream, job)
    session, call = load_model(stream, runner, job, read_inputs(job))
    run_first_inference(stream, call)
    wall_ns = [latency.time_run(call, i) for i in range(job["warmup_runs"] + job["runs"])]
    found = session.profile()
    for wall, operators in list(zip(wall_ns, found["runs"][1:]))[job["warmup_runs"] :]:  # [0]: the first inference
        stream.send("operators", wall_ns=wall, operators=operators)
    stream.send("trace", content=found["trace"])


def run_under_limit(stream: EventStream, job: Job) -> None:
    """Run the model under a memory limit."""
    send_hello(stream, {})
    stream.send("limited", **memory.run_limited(job))


HANDLERS = {
    "probe": probe_device,
    "cool_down": cool_down,
    "bundle": run_bundle,
    "latency": measure_latency,
    "latency_in_turns": measure_latency_in_turns,
    "pair": latency.run_in_turns,
    "memory": measure_memory,
    "outputs": compute_outputs,
    "energy": measure_energy,
    "profile": profile_operators,
    "fits": run_under_limit,
}


def warm_up_model(stream: EventStream, job: Job) -> Call:
    """Import, load, first inference and warm-up, each with its event. Returns what runs the model on a sample."""
    runner = import_runner(stream, job)
    feeds = read_inputs(job)
    gc.disable()
    _, call = load_model(stream, runner, job, feeds)
    run_first_inference(stream, call)
    stream.send("warmup", **latency.warm_up(call, job["warmup"]))
    return call


def import_runner(stream: EventStream, job: Job) -> Any:
    """Import formats/F/run.py and its runtime, before anything is measured. ImportError with the pip command for the device, which names
    all packages that the runtime needs."""
    stream.phase = "import"
    needed = ["numpy"]  # all that a run.py itself needs
    try:
        runner = importlib.import_module(job["runner"])
        needed = list(packages.list_packages(runner).values())
        packages.import_packages(runner)
        importlib.import_module(SESSIONS)
    except ImportError as error:
        raise ImportError(f"{error}; on the device: {sys.executable} -m pip install {' '.join(needed)}") from error
    send_hello(stream, runner.versions())
    return runner


def read_inputs(job: Job) -> List[Dict[str, Any]]:
    """The feeds of batch 1, one for each stored sample. With the scope end_to_end: the raw picture, uint8 [1, h, w, c]."""
    import numpy as np

    from edgewise.agent import ragged

    with np.load(job["inputs"]) as stored:
        arrays = ragged.unpack({name: stored[name] for name in stored.files})
    count = len(next(iter(arrays.values())))
    return [{name: np.ascontiguousarray(ragged.take(array, i)) for name, array in arrays.items()} for i in range(count)]


def load_model(stream: EventStream, runner: Any, job: Job, feeds: List[Dict[str, Any]]) -> Tuple[Any, Call]:
    """The session, and what runs it on the sample of a number."""
    stream.phase = "load"
    from edgewise.agent import sessions

    start = time.perf_counter_ns()
    session = sessions.load(runner, job["model"], job["settings"], keep=job["kind"] == "profile")
    stream.send("loaded", wall_ns=time.perf_counter_ns() - start)
    return session, make_call(session, job, feeds)


def make_call(session: Any, job: Job, feeds: List[Dict[str, Any]]) -> Call:
    """Scope model: the session alone. Scope end_to_end: preprocessing before it, and after it what job["answer"] says (decoding of boxes, a
    map of classes), else argmax. Of a model with state one step is a run, except where whole sequences are asked for (job `outputs`)."""
    if job["scope"] == "model":
        from edgewise.agent import ports

        run = session.run
        if job["kind"] != "outputs" and getattr(session, "stateful", False):
            run, feeds = session.step, ports.split_steps(feeds)
        return lambda i: run(feeds[i % len(feeds)])
    from edgewise.agent import preprocess

    spec, answer = job["preprocessing"], make_answer(job)

    def run_end_to_end(i: int) -> Dict[str, Any]:
        raw = feeds[i % len(feeds)]
        outputs = session.run(
            {name: preprocess.normalize(preprocess.resize_to_spec(array[0], spec)[None], spec) for name, array in raw.items()}
        )
        return answer(outputs, next(iter(raw.values()))[0])

    return run_end_to_end


def make_answer(job: Job) -> Callable[[Dict[str, Any], Any], Dict[str, Any]]:
    """A function that makes the answer to a picture, uint8 [h, w, c], from the outputs of the model for it."""
    spec = job["answer"]
    if spec is None:
        return lambda outputs, picture: {name: array.argmax(axis=-1) for name, array in outputs.items()}
    from edgewise.agent.geometry import Geometry
    from edgewise.agent.sample_answer import answer_sample

    return lambda outputs, picture: answer_sample(
        outputs, spec, spec["labels"], Geometry.of(job["preprocessing"], picture.shape[0], picture.shape[1])
    )


def run_first_inference(stream: EventStream, call: Call) -> None:
    stream.phase = "first inference"
    stream.send("first_inference", wall_ns=latency.time_run(call, 0))
    stream.phase = "run"
