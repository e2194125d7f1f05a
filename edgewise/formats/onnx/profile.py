"""Where the time goes in a model.onnx, from ONNX Runtime's own trace. Shipped with run.py; Python 3.9."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Mapping

import numpy as np

from edgewise.formats.onnx import run

RUNTIME, PACKAGE, versions = run.RUNTIME, run.PACKAGE, run.versions
UNSUPPORTED = None
KERNEL = "_kernel_time"  # suffix of a node's name in the trace
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast")


class Session(run.Session):
    """See plugins.ProfiledSession."""

    def __init__(self, opened: Any, folder: Any):
        super().__init__(opened)
        self._folder = folder

    def profile(self) -> dict[str, Any]:
        wanted = self._session.get_providers()[0]
        with open(self._session.end_profiling(), encoding="utf-8") as stream:
            trace = stream.read()
        self._folder.cleanup()
        return {"runs": split_runs(json.loads(trace), wanted), "trace": trace}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    traces = tempfile.TemporaryDirectory(prefix="edgewise-")
    return Session(run.open_file(folder, settings, os.path.join(traces.name, "trace")), traces)


def split_runs(events: list[dict[str, Any]], wanted: str) -> list[list[dict[str, Any]]]:
    """The operators of each run, those outside of the provider `wanted` as fallback. A run follows its nodes in the trace."""
    found: list[list[dict[str, Any]]] = []
    nodes: list[dict[str, Any]] = []
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(KERNEL):
            nodes.append(event)
        elif event["name"] == "model_run":
            found.append([_operator(node, wanted) for node in outermost(nodes)])
            nodes = []
    return found


def outermost(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes except those that run inside another (the body of a loop), which would count twice. Times in us."""
    kept: list[dict[str, Any]] = []
    end = -1
    for node in sorted(nodes, key=lambda node: (node["ts"], node["dur"] > 0, -node["dur"])):
        if node["ts"] >= end:
            kept.append(node)
            end = node["ts"] + node["dur"]
    return kept


def _operator(node: Mapping[str, Any], wanted: str) -> dict[str, Any]:
    details = node["args"]
    types = [name for given in details.get("input_type_shape", ()) for name in given]
    return {
        "name": node["name"][: -len(KERNEL)],
        "type": details["op_name"],
        "kernel": details.get("provider"),
        "dtype": np.dtype(run.NUMPY_NAMES.get(types[0], types[0])).name if types else None,
        "converts": details["op_name"] in CONVERSIONS,
        "fallback": details.get("provider") != wanted,
        "time_ns": 1000 * node["dur"],
    }
