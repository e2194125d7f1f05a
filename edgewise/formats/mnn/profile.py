"""Where the time goes in a model.mnn, from MNN's callbacks around each operator. Shipped with run.py; Python 3.9.

Callbacks belong to MNN's older interface, the Interpreter, which computes the same bit by bit but runs no control flow: a model with If or
Loop (a recurrent layer is one) is a single operator here.
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np

from edgewise.formats.mnn import run

RUNTIME, PACKAGE, versions = run.RUNTIME, run.PACKAGE, run.versions
UNSUPPORTED = None
CONVERSIONS = ("FloatToInt8", "Int8ToFloat")
INTEGER = "DT_INT8"  # stands in the type of an operator that computes in 8 bits: `Convolution [ DT_INT8 ]`
Callback = Callable[[List[Any], Any], bool]


class Interpreted:
    """A model in MNN's Interpreter, whose operators can be looked at one by one. settings: as for run.choose."""

    def __init__(self, folder: str, settings: Mapping[str, Any]):
        self._mnn, chosen = run.import_runtime(), run.choose(settings)
        self._net = self._mnn.Interpreter(os.path.join(folder, run.MODEL))
        self._net.setSessionHint(run.WINOGRAD_MEMORY_LEVEL, chosen.pop("winograd_memory"))
        self._session = self._net.createSession({**chosen, "backend": "CPU"})
        self._inputs: Dict[str, Any] = self._net.getSessionInputAll(self._session)
        self._shapes: Dict[str, Tuple[int, ...]] = {}

    @property
    def runs(self) -> bool:
        """Whether the Interpreter can run this model: it has no control flow. Known once `feed` has given the inputs."""
        return all(0 not in tensor.getShape() for tensor in self.results().values())

    def feed(self, feeds: Mapping[str, np.ndarray]) -> None:
        shapes = {name: tuple(feeds[name].shape) for name in self._inputs}
        if shapes != self._shapes:
            for name, tensor in self._inputs.items():
                self._net.resizeTensor(tensor, shapes[name])
            self._net.resizeSession(self._session)
            self._shapes = shapes
        for name, tensor in self._inputs.items():
            tensor.copyFrom(self._host_tensor(feeds[name], tensor.getDataType()))

    def run(self, before: Callback, after: Callback) -> None:
        """Run what was fed. before, after: called with the inputs or the outputs of each operator, and its description."""
        self._net.runSessionWithCallBackInfo(self._session, before, after)

    def results(self) -> Dict[str, Any]:
        found: Dict[str, Any] = self._net.getSessionOutputAll(self._session)
        return found

    def read(self, tensor: Any) -> np.ndarray:
        """The values of a tensor, float32 or int32, in the layout of the source."""
        kind = tensor.getDataType()
        held = self._host_tensor(np.zeros(tensor.getShape(), self._numpy_type(kind)), kind)
        tensor.copyToHostTensor(held)
        return np.array(held.getNumpyData()).reshape(tensor.getShape())

    def _host_tensor(self, array: np.ndarray, kind: Any) -> Any:
        values = np.ascontiguousarray(array, self._numpy_type(kind))
        return self._mnn.Tensor(values.shape, kind, values, self._mnn.Tensor_DimensionType_Caffe)

    def _numpy_type(self, kind: Any) -> Any:
        mnn = self._mnn
        known = ((mnn.Halide_Type_Float, np.float32), (mnn.Halide_Type_Int, np.int32), (mnn.Halide_Type_Uint8, np.uint8))
        return next(found for halide, found in known if halide == kind)


class Session(run.Session):
    """See plugins.ProfiledSession."""

    def __init__(self, folder: str, settings: Mapping[str, Any]):
        super().__init__(folder, settings)
        self._interpreted = Interpreted(folder, settings)
        self._runs: List[List[Dict[str, Any]]] = []

    def run(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        self._interpreted.feed(feeds)
        if not self._interpreted.runs:
            return self._run_whole(feeds)
        operators: List[Dict[str, Any]] = []
        starts: List[int] = []

        def before(tensors: List[Any], described: Any) -> bool:
            starts.append(time.perf_counter_ns())
            return True

        def after(tensors: List[Any], described: Any) -> bool:
            operators.append(_operator(described.getName(), described.getType(), time.perf_counter_ns() - starts[-1]))
            return True

        self._interpreted.run(before, after)
        self._runs.append(operators)
        found = self._interpreted.results()
        return {port["name"]: self._interpreted.read(found[port["name"]]).astype(run.plain_type(port)) for port in self.outputs}

    def _run_whole(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        start = time.perf_counter_ns()
        results = super().run(feeds)
        self._runs.append([_operator("model", "Module", time.perf_counter_ns() - start)])
        return results

    def profile(self) -> Dict[str, Any]:
        return {"runs": self._runs, "trace": None}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    return Session(folder, settings)


def _operator(name: str, described: str, time_ns: int) -> Dict[str, Any]:
    kind = described.partition(" [")[0].strip()
    return {
        "name": name,
        "type": run.operator_type(name, kind),
        "kernel": None,
        "dtype": "int8" if INTEGER in described else "float32",
        "converts": kind in CONVERSIONS,
        "fallback": False,
        "time_ns": time_ns,
    }
