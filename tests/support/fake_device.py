"""A device that is this machine, but for what its outputs are: for tests of what the host makes of them.

outputs: as they are | 1e-3 (relative noise) | negated | nan | cut (a shape of its own) | garbage (no arrays at all)
"""

from __future__ import annotations

import contextlib
from base64 import b64decode, b64encode
from dataclasses import dataclass

import numpy as np

from edgewise.devices import local

EMULATED = False


@dataclass(frozen=True)
class Settings(local.Settings):
    outputs: str = "0"


@contextlib.contextmanager
def connect(settings):
    yield Changing(settings.outputs)


class Changing(local.LocalDevice):
    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def run(self, job, deadline_s):
        for event in super().run(job, deadline_s):
            changed = event["event"] == "outputs"
            yield {**event, "arrays": {n: self.changed(p, event["index"]) for n, p in event["arrays"].items()}} if changed else event

    def changed(self, packed: dict, seed: int) -> dict:
        if self.how == "garbage":
            return {**packed, "base64": "???"}
        values = np.frombuffer(b64decode(packed["base64"]), packed["dtype"]).reshape(packed["shape"])
        if self.how == "cut":
            values = values[:, :1]
        elif self.how == "nan":
            values = values * np.float32(np.nan)
        elif self.how == "negated":
            values = -values
        else:
            values = values * (1 + float(self.how) * np.random.default_rng(seed).normal(size=values.shape)).astype(values.dtype)
        return {**packed, "shape": list(values.shape), "base64": b64encode(values.tobytes()).decode()}
