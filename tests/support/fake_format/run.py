"""A format without a runtime: its model.json says what a "model" does. For tests of everything around formats/F/run.py.

{"sleep_ms": 2}   {"burn_ms": 2}   {"hold_mib": 100}   {"load": "abort" | "refuse" | "kill" | "hang"}   {"print": "noise"}
{"negate": true}   {"note": "FILE"} adds a line to FILE at each run: pid and time   {"spins": "FILE"} does so without end, in a thread
{"at": {"fast": {"sleep_ms": 1}}} says what it does otherwise with the engine setting speed=fast
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np

RUNTIME = "json"
PACKAGE = "fake-runtime"
COMPANIONS = {}
AS_WRITTEN = None
ENGINE = {"threads": None, "speed": None, "other": None}
GRID = ({"speed": "fast"}, {"speed": "same"}, {"speed": "odd"}, {"speed": "wrong"}, {"other": 1})
GRID_THREADED = ({"speed": "wide"},)
HANG_S = 600


class Session:
    inputs = outputs = ()

    def __init__(self, does):
        self.does = does
        self.held = np.ones(does.get("hold_mib", 0) << 20, np.uint8)
        if "spins" in does:
            threading.Thread(target=self._spin, daemon=True).start()

    def _spin(self):
        while True:
            self._note(self.does["spins"])

    @staticmethod
    def _note(file):
        with Path(file).open("a") as stream:
            stream.write(f"{os.getpid()} {time.monotonic_ns()}\n")

    def run(self, feeds):
        time.sleep(self.does.get("sleep_ms", 0) / 1000)
        end = time.perf_counter() + self.does.get("burn_ms", 0) / 1000
        while time.perf_counter() < end:
            pass
        if "note" in self.does:
            self._note(self.does["note"])
        if "print" in self.does:
            print(self.does["print"])
            ctypes.CDLL(None).puts(self.does["print"].encode())  # as native code does, past sys.stdout
        if self.does.get("run") == "fill":
            held = np.ones(self.does["run_mib"] << 20, np.uint8)
            del held
        sign = -1 if self.does.get("negate") else 1
        return {"logits": sign * np.stack([np.ravel(array).astype(np.float32)[:2] for array in feeds.values()])}


def load(folder, settings):
    does = json.loads((Path(folder) / "model.json").read_text())
    does.update(does.get("at", {}).get(settings.get("speed"), {}))
    act = does.get("load")
    if act == "refuse":
        raise ValueError("this file holds operator Frobnicate, which this runtime lacks")
    if act == "abort":
        os.abort()
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang":
        ctypes.PyDLL(None).sleep(HANG_S)  # native code that keeps the interpreter lock
    return Session(does)


def versions():
    return {"fake": "1.0", "threads": os.environ.get("OMP_NUM_THREADS", "")}
