"""Getting the model of a job ready: runtime, inputs, load, first inference. What every pass on a model begins with."""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, Tuple

from edgewise.agent import blocks
from edgewise.agent.protocol import Wire, hello

PARTS = "edgewise.agent.sessions"  # imported late: it needs numpy, and that a bare board lacks it is to be said in an event
Job = Mapping[str, Any]
Call = Callable[[int], Any]  # runs the model on the sample of that number


def import_runner(wire: Wire, job: Job) -> Any:
    """formats/F/run.py and the runtime behind it, both imported before anything is measured."""
    wire.phase = "import"
    package = "numpy"  # all that a run.py itself needs
    try:
        runner = importlib.import_module(job["runner"])
        package = runner.PACKAGE
        importlib.import_module(runner.RUNTIME)
        importlib.import_module(PARTS)
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
    from edgewise.agent import preprocess

    spec = job["preprocessing"]

    def end_to_end(i: int) -> Dict[str, Any]:
        raw = feeds[i % len(feeds)]
        outputs = session.run({name: preprocess.normalize(preprocess.fit(array[0], spec)[None], spec) for name, array in raw.items()})
        return {name: array.argmax(axis=-1) for name, array in outputs.items()}

    return end_to_end


def load(wire: Wire, runner: Any, job: Job, feeds: List[Dict[str, Any]]) -> Tuple[Any, Call]:
    wire.phase = "load"
    from edgewise.agent import sessions

    start = time.perf_counter_ns()
    session = sessions.load(runner, job["model"], job["settings"], keep=job["kind"] == "profile")
    wire.send("loaded", wall_ns=time.perf_counter_ns() - start)
    return session, make_call(session, job, feeds)


def first_inference(wire: Wire, call: Call) -> None:
    wire.phase = "first inference"
    wire.send("first_inference", wall_ns=blocks.timed(call, 0))
    wire.phase = "run"
