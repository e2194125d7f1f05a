"""What the agent can be asked to do without a model of its own: look at the device, wait for it to cool down, try a bundle."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from stages.payload import hostinfo, limits, sensors
from stages.payload.model import Job
from stages.payload.wire import Wire, hello

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
    wire.send("facts", facts=hostinfo.facts(job["packages"]), sensors=list(map(sensors.describe, found)), memory_limit=limits.available())


KINDS = {"probe": probe, "cool_down": cool_down, "bundle": bundle}
