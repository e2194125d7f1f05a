"""Where the time goes in a model that tract runs. Shipped with run.py; Python 3.9.

tract's profiler repeats a run for up to five seconds and gives the mean time of each of its own operators, of which one in the file becomes
several. It is called once; each run has its own measured time, shared out among the operators as in that mean.
"""

from __future__ import annotations

import json
import time
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from edgewise.formats.tract import run

RUNTIME, PACKAGE, versions = run.RUNTIME, run.PACKAGE, run.versions
UNSUPPORTED = None
PRODUCT = "MatMul"  # in the type of tract's operator that computes a product, which has the name of the activation fused into it


class Session(run.Session):
    """See plugins.ProfiledSession."""

    def __init__(self, folder: str, settings: Mapping[str, Any]):
        super().__init__(folder, settings)
        self._times_ns: List[int] = []
        self._last: List[np.ndarray] = []

    def run(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        start = time.perf_counter_ns()
        results = super().run(feeds)
        self._times_ns.append(time.perf_counter_ns() - start)
        self._last = self.cast(feeds)
        return results

    def profile(self) -> Dict[str, Any]:
        times = add_up(json.loads(self.runnable.profile_json(self._last))["nodes"], self.described["operators"])
        whole = sum(times.values()) or 1.0
        kinds = {name: self.described["operators"].get(name, {"type": "Other"})["type"] for name in times}
        runs = [[_describe(name, kinds[name], int(taken * seconds / whole)) for name, seconds in times.items()] for taken in self._times_ns]
        return {"runs": runs, "trace": None}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    return Session(folder, settings)


def add_up(nodes: List[Dict[str, Any]], operators: Mapping[str, Mapping[str, Any]]) -> Dict[str, float]:
    """Seconds for each operator of the file, in the order of the file. nodes: of tract's profiler; operators: of model.json."""
    found: Dict[str, float] = {}
    for node in nodes:
        if "secs_per_iter" in node:
            name = find_operator(node, operators)
            found[name] = found.get(name, 0.0) + node["secs_per_iter"]
    places: Dict[str, Tuple[int, str]] = {name: (place, name) for place, name in enumerate(operators)}
    return {name: found[name] for name in sorted(found, key=lambda name: places.get(name, (-1, name)))}


def find_operator(node: Mapping[str, Any], operators: Mapping[str, Mapping[str, Any]]) -> str:
    """The operator of the file that tract's belongs to: tract adds endings to its name, as in `conv1.im2col`."""
    own: str = node["node_name"]
    name = own
    while name not in operators and "." in name:
        name = name.rpartition(".")[0]
    if name not in operators:
        return own
    product = operators[name]["product"]
    return product if product and PRODUCT in node["op_name"] else name


def _describe(name: str, kind: str, time_ns: int) -> Dict[str, Any]:
    return {"name": name, "type": kind, "kernel": None, "dtype": "float32", "converts": False, "fallback": False, "time_ns": time_ns}
