"""Where the time goes in a net of ncnn. Shipped with run.py; Python 3.9.

The wheel reports no times. So blobs are extracted one after another in the order of the file, each as the kernel left it, packed: an
extraction then runs one layer. Blobs are kept until the run ends, so layers that work in place copy theirs first.
"""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping

import numpy as np

from edgewise.formats.ncnn import run

RUNTIME, PACKAGE, versions = run.RUNTIME, run.PACKAGE, run.versions
UNSUPPORTED = None
AS_LEFT = 1  # extract without unpacking and widening the blob
CONVERSIONS = ("Quantize", "Dequantize", "Requantize", "Cast")
Operator = Dict[str, Any]


class Session(run.Session):
    """See plugins.ProfiledSession."""

    def __init__(self, net: Any, ports: Mapping[str, List[Dict[str, Any]]]):
        super().__init__(net, ports)
        self._layers = [layer for layer in net.layers() if layer.type != "Input"]
        self._blobs = [blob.name for blob in net.blobs()]
        self._runs: List[List[Operator]] = []

    def run(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        extractor = run.start(self._net, self._given, feeds)
        self._runs.append([self._time(extractor, layer) for layer in self._layers])
        return {port["name"]: run.extract(extractor, port) for port in self._wanted}

    def _time(self, extractor: Any, layer: Any) -> Operator:
        blob, integers = self._blobs[layer.tops[0]], self._reads_integers(extractor, layer)
        begin = time.perf_counter_ns()
        code, _ = extractor.extract(blob, AS_LEFT)
        taken = time.perf_counter_ns() - begin
        if code:
            raise RuntimeError("ncnn cannot compute layer %s (%s): code %s" % (layer.name, layer.type, code))
        return {
            "name": layer.name,
            "type": layer.type,
            "kernel": None,
            "dtype": "int8" if integers else "float32",
            "converts": layer.type in CONVERSIONS,
            "fallback": False,
            "time_ns": taken,
        }

    def _reads_integers(self, extractor: Any, layer: Any) -> bool:
        """Whether the first blob that it reads holds int8, which an earlier extraction has computed."""
        if not layer.bottoms:
            return False
        _, held = extractor.extract(self._blobs[layer.bottoms[0]], AS_LEFT)
        return bool(held.elembits() == 8)

    def profile(self) -> Dict[str, Any]:
        return {"runs": self._runs, "trace": None}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """As run.load; `light` has no effect, since all blobs are kept."""
    return Session(run.open_net(folder, {**settings, "light": False}), run.read_ports(folder))
