"""Run an ONNX model with ONNX Runtime. Shipped to the device: standard library, numpy and onnxruntime only; Python 3.9."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Tuple

import numpy as np

RUNTIME = "onnxruntime"
PACKAGE = "onnxruntime"
OLDEST = "1.19"  # the oldest release that runs these files
COMPANIONS: Dict[str, Tuple[str, str]] = {}
MODEL = "model.onnx"
OPTIMIZED, ORT = "model.optimized.onnx", "model.ort"  # in its place where the graph was optimized when it was written, see store.py
NUMPY_NAMES = {"float": "float32", "double": "float64"}  # ONNX Runtime's names of types that numpy calls otherwise
ONLY_ERRORS = 3  # log severity
LEVELS = {"disable": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
ENGINE = {
    "threads": range(1, 1025),
    "graph_optimization": tuple(LEVELS),
    "execution_mode": tuple(MODES),
    "arena": (True, False),
    "memory_pattern": (True, False),
    "prepacking": (True, False),
    "spinning": (True, False),
    "providers": None,  # those that the device's wheel has; asked there
}
AS_WRITTEN = {"graph_optimization": "basic"}  # no fused integer kernels: every operator in float, between its roundings
REDUCED_PRECISION: Dict[str, Tuple[Any, ...]] = {}
# what `engine: auto` tries, point by point; the second only where more than one thread may be used
GRID: Tuple[Dict[str, Any], ...] = (
    {"graph_optimization": "extended"},  # weights stay in the file's own layout: less memory
    {"graph_optimization": "basic"},
    {"arena": False},
    {"memory_pattern": False},
    {"prepacking": False},
    {"arena": False, "prepacking": False},
)
GRID_THREADED: Tuple[Dict[str, Any], ...] = ({"spinning": False}, {"execution_mode": "parallel"})


class Session:
    """One loaded model. Feeds are cast to what the file takes; floating results come back as float32."""

    def __init__(self, session: Any):
        self._session = session
        self._refusals = _refusals()
        self.inputs = [_describe(tensor) for tensor in session.get_inputs()]
        self.outputs = [_describe(tensor) for tensor in session.get_outputs()]
        self._names = [tensor["name"] for tensor in self.outputs]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        cast = {t["name"]: np.asarray(feeds[t["name"]]).astype(t["dtype"], copy=False) for t in self.inputs}
        try:
            results = self._session.run(self._names, cast)
        except self._refusals as error:
            raise RuntimeError(str(error)) from error
        return {name: _plain(array) for name, array in zip(self._names, results)}


def _describe(tensor: Any) -> dict[str, Any]:
    kind = tensor.type[len("tensor(") : -1]
    shape = [size if isinstance(size, int) else None for size in tensor.shape]
    return {"name": tensor.name, "shape": shape, "dtype": NUMPY_NAMES.get(kind, kind)}


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """Load the model of `folder`; settings as for `open_file`."""
    return Session(open_file(folder, settings))


def open_file(folder: str, settings: Mapping[str, Any], profile_prefix: str | None = None) -> Any:
    """An onnxruntime.InferenceSession; profile_prefix: where it is to write a trace of what it runs.

    settings: as in ENGINE, each with ONNX Runtime's own default; conf/format/onnx.yaml says what they mean. ValueError for an
    unknown setting or value, and for a provider that this wheel has not; RuntimeError where the runtime refuses the file.
    """
    import onnxruntime

    chosen = dict(settings)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ONLY_ERRORS
    options.enable_profiling = profile_prefix is not None
    options.profile_file_prefix = profile_prefix or ""
    options.intra_op_num_threads = threads = int(chosen.pop("threads", 1))
    mode = _known(chosen, "execution_mode", "sequential", MODES)
    options.execution_mode = getattr(onnxruntime.ExecutionMode, mode)
    options.inter_op_num_threads = threads if mode == MODES["parallel"] else 1
    options.enable_cpu_mem_arena = bool(chosen.pop("arena", True))
    options.enable_mem_pattern = bool(chosen.pop("memory_pattern", True))
    options.add_session_config_entry("session.disable_prepacking", str(int(not chosen.pop("prepacking", True))))
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(chosen.pop("spinning", True))))
    name, level = _file(folder), _known(chosen, "graph_optimization", "all", LEVELS)
    level = level if name == MODEL else LEVELS["disable"]  # what was optimized when it was written would only be copied again
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    providers = list(chosen.pop("providers", ["CPUExecutionProvider"]))
    if chosen:
        raise ValueError(f"unknown engine settings {sorted(chosen)}; allowed: {', '.join(ENGINE)}")
    missing = set(providers) - set(onnxruntime.get_available_providers())
    if missing:
        has = ", ".join(onnxruntime.get_available_providers())
        raise ValueError(f"engine.providers: {', '.join(sorted(missing))}: not in this wheel of onnxruntime; it has: {has}")
    try:
        return onnxruntime.InferenceSession(os.path.join(folder, name), options, providers=providers)
    except _refusals() as error:
        raise RuntimeError(str(error)) from error


def _file(folder: str) -> str:
    """Which of the three forms of a model lies there."""
    return next((name for name in (OPTIMIZED, ORT) if os.path.exists(os.path.join(folder, name))), MODEL)


def _refusals() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions: they have no class in common but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state

    kinds = vars(onnxruntime_pybind11_state).values()
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))


def _known(chosen: dict[str, Any], key: str, usual: str, names: Mapping[str, str]) -> str:
    """Take one setting out of `chosen`, in ONNX Runtime's own words."""
    name = chosen.pop(key, usual)
    if name not in names:
        raise ValueError(f"engine.{key}: {name!r}; allowed: {', '.join(names)}")
    return names[name]


def versions() -> dict[str, str]:
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
