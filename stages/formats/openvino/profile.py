"""Where the time goes in a model.xml, from OpenVINO's performance counters. Shipped with run.py; Python 3.9."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Mapping

import numpy as np

from stages.formats.openvino import run

RUNTIME, PACKAGE, versions = run.RUNTIME, run.PACKAGE, run.versions
UNSUPPORTED = None
CONVERSIONS = ("Convert", "FakeQuantize")
REFERENCE = "ref"  # ref_any_f32: a plain loop, there for correctness
US = timedelta(microseconds=1)
DTYPES = {  # at the end of a kernel's name
    **{"i8": "int8", "u8": "uint8", "i32": "int32", "i64": "int64"},
    **{"f32": "float32", "fp32": "float32", "f16": "float16", "fp16": "float16", "bf16": "bfloat16"},
}


class Session(run.Session):
    """See plugins.ProfiledSession."""

    def __init__(self, compiled: Any):
        super().__init__(compiled)
        self._runs: list[list[dict[str, Any]]] = []

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = super().run(feeds)
        executed = [node for node in self._request.get_profiling_info() if node.status == node.Status.EXECUTED]
        self._runs.append([_operator(node) for node in executed])
        return results

    def profile(self) -> dict[str, Any]:
        return {"runs": self._runs, "trace": None}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    return Session(run.compiled(folder, settings, PERF_COUNT=True))


def _operator(node: Any) -> dict[str, Any]:
    return {
        "name": node.node_name,
        "type": node.node_type,
        "kernel": node.exec_type,
        "dtype": DTYPES.get(node.exec_type.rpartition("_")[2].lower()),
        "converts": node.node_type in CONVERSIONS,
        "fallback": node.exec_type.startswith(REFERENCE),
        "time_ns": 1000 * (node.real_time // US),
    }
