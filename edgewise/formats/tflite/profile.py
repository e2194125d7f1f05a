"""Which operators of a model.tflite the delegate took. Shipped with run.py; Python 3.9."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np

from edgewise.formats.tflite import run

RUNTIME, PACKAGE, versions = run.RUNTIME, run.PACKAGE, run.versions
UNSUPPORTED = "TFLite's Python runtime gives no time per operator, only which of them the delegate took"
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST")
DELEGATE, OWN = "DELEGATE", "TFLite's own"


class Session(run.Session):
    """See plugins.ProfiledSession."""

    def __init__(self, interpreter: Any):
        super().__init__(interpreter)
        self._operators = operators(interpreter)
        self._count = 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._count += 1
        return super().run(feeds)

    def profile(self) -> dict[str, Any]:
        return {"runs": [self._operators] * self._count, "trace": None}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    return Session(run.interpreter(folder, settings))


def operators(interpreter: Any) -> list[dict[str, Any]]:
    """The operators of the file, each with who computes it. The interpreter lists the delegate's parts behind them."""
    nodes = interpreter._get_ops_details()  # there is no public way
    computed = {int(tensor) for node in nodes for tensor in node["outputs"]} | {d["index"] for d in interpreter.get_input_details()}
    types = {detail["index"]: np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()}
    taken = delegated(nodes)
    return [
        {
            "name": f"{node['op_name']} {node['index']}",
            "type": node["op_name"],
            "kernel": "XNNPACK delegate" if node["index"] in taken else OWN,
            "dtype": types.get(int(node["inputs"][0])) if len(node["inputs"]) else None,
            "converts": node["op_name"] in CONVERSIONS and int(node["inputs"][0]) in computed,  # else of weights, once
            "fallback": node["index"] not in taken,
            "time_ns": None,
        }
        for node in nodes
        if node["op_name"] != DELEGATE
    ]


def delegated(nodes: list[dict[str, Any]]) -> set[int]:
    """The nodes that a delegate's part stands for: all that lie between what it gives and what it takes."""
    makers = {int(tensor): node for node in nodes if node["op_name"] != DELEGATE for tensor in node["outputs"]}
    taken: set[int] = set()
    for part in (node for node in nodes if node["op_name"] == DELEGATE):
        given, wanted = set(map(int, part["inputs"])), [int(tensor) for tensor in part["outputs"]]
        while wanted:
            tensor = wanted.pop()
            node = makers.get(tensor)
            if node is not None and tensor not in given and node["index"] not in taken:
                taken.add(node["index"])
                wanted += [int(inner) for inner in node["inputs"]]
    return taken
