"""Where the time goes in a model.pt, from torch's profiler. Shipped with run.py; Python 3.9."""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterator, Mapping

import numpy as np

from edgewise.formats.torch import run

RUNTIME, PACKAGE, versions = run.RUNTIME, run.PACKAGE, run.versions
UNSUPPORTED = None
RUN = "edgewise run"
CONVERSIONS = (
    "aten::quantize_per_tensor",
    "aten::quantize_per_tensor_dynamic",
    "aten::quantize_per_channel",
    "aten::dequantize",
    "aten::to",
)


class Session:
    """See plugins.ProfiledSession. TorchScript keeps no names of its calls: they are numbered within their kind."""

    def __init__(self, session: run.Session):
        self._session = session
        self.inputs, self.outputs = session.inputs, session.outputs
        torch = run.import_torch()
        self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        self._profiler.start()

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with run.import_torch().profiler.record_function(RUN):
            return self._session.run(feeds)

    def profile(self) -> dict[str, Any]:
        self._profiler.stop()
        roots = [event for event in self._profiler.events() if event.name == RUN and event.cpu_parent is None]
        return {"runs": [_operators(root) for root in sorted(roots, key=lambda root: root.time_range.start)], "trace": None}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    return Session(run.load(folder, settings))


def _operators(root: Any) -> list[dict[str, Any]]:
    count: Counter[str] = Counter()
    found = []
    for call in calls(root):
        count[call.name] += 1
        found.append(_operator(call, count[call.name]))
    return found


def calls(event: Any) -> Iterator[Any]:
    """The outermost operators (NAMESPACE::NAME) below an event, through modules and functions, in the order of their start."""
    for child in sorted(event.cpu_children, key=lambda child: child.time_range.start):
        if "::" in child.name:
            yield child
        else:
            yield from calls(child)


def _operator(call: Any, number: int) -> dict[str, Any]:
    return {
        "name": f"{call.name.partition('::')[2]} {number}",
        "type": call.name,
        "kernel": kernel(call),
        "dtype": None,
        "converts": call.name in CONVERSIONS,
        "fallback": False,
        "time_ns": round(1000 * call.cpu_time_total),
    }


def kernel(call: Any) -> str:
    """The operator that does the work: down the children that take the greater part."""
    heaviest = max(call.cpu_children, key=lambda child: child.cpu_time_total, default=None)
    return kernel(heaviest) if heaviest is not None and 2 * heaviest.cpu_time_total > call.cpu_time_total else str(call.name)
