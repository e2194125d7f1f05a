"""Where the time goes in a model.xml, from OpenVINO's performance counters. Shipped with run.py; Python 3.9."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Mapping

import numpy as np

from edgewise.formats.openvino import run

RUNTIME, PACKAGE, versions = run.RUNTIME, run.PACKAGE, run.versions
UNSUPPORTED = None
CONVERSIONS = ("Convert", "FakeQuantize")
REFERENCE = "ref"  # ref_any_f32: a plain loop, for correctness only
US = timedelta(microseconds=1)
DTYPES = {  # suffix of a kernel's name
    **{"i8": "int8", "u8": "uint8", "i32": "int32", "i64": "int64"},
    **{"f32": "float32", "fp32": "float32", "f16": "float16", "fp16": "float16", "bf16": "bfloat16"},
}


class Session(run.Session):
    """See plugins.ProfiledSession.

    OpenVINO reports the mean time of all runs since the model was compiled, in integer microseconds. The time of run n is computed as the
    difference of n and n - 1 times these means. Its error is up to n microseconds; that of a median over many runs, a few microseconds.
    """

    def __init__(self, model: Any, compiled: Any):
        super().__init__(model, compiled)
        self._runs: list[list[dict[str, Any]]] = []
        self._totals_us: dict[tuple[str, str], int] = {}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = super().run(feeds)
        executed = [node for node in self._request.get_profiling_info() if node.status == node.Status.EXECUTED]
        self._runs.append([_operator(node, 1000 * max(0, self._last_run_us(node))) for node in executed])
        return results

    def _last_run_us(self, node: Any) -> int:
        key, total_us = (node.node_name, node.exec_type), (len(self._runs) + 1) * (node.real_time // US)
        before_us, self._totals_us[key] = self._totals_us.get(key, 0), total_us
        return int(total_us - before_us)

    def profile(self) -> dict[str, Any]:
        return {"runs": self._runs, "trace": None}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    return Session(*run.compiled(folder, settings, PERF_COUNT=True))


def _operator(node: Any, time_ns: int) -> dict[str, Any]:
    return {
        "name": node.node_name,
        "type": node.node_type,
        "kernel": node.exec_type,
        "dtype": DTYPES.get(node.exec_type.rpartition("_")[2].lower()),
        "converts": node.node_type in CONVERSIONS,
        "fallback": node.exec_type.startswith(REFERENCE),
        "time_ns": time_ns,
    }
