"""Run model.mnn with MNN on the CPU. Shipped to the device: standard library, numpy and MNN only; Python 3.9.

MNN takes settings that it does not know without a word, and `memory: "low"` as a string too: only its numbers count.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import numpy as np

RUNTIME = "MNN"
PACKAGE = "MNN"
OLDEST = "3.4"  # the oldest release that these files were tried with
COMPANIONS: Dict[str, Tuple[str, str]] = {}
MODEL = "model.mnn"
CPU = 0  # MNN's number
PRECISION = {"high": 1, "low": 2, "low_bf16": 3}
MEMORY = {"normal": 0, "low": 2}
POWER = {"normal": 0, "high": 1, "low": 2}
WINOGRAD_MEMORY_LEVEL = 3  # number of the hint
ENGINE = {
    "threads": range(1, 1025),
    "precision": tuple(PRECISION),
    "memory": tuple(MEMORY),
    "power": tuple(POWER),
    "winograd_memory": (3, 2, 1, 0),
}
AS_WRITTEN = {"precision": "high", "memory": "normal"}  # weights are unpacked to floats, and nothing is rounded at run time
REDUCED_PRECISION: Dict[str, Tuple[Any, ...]] = {"precision": ("low", "low_bf16")}
# what `engine: auto` tries, point by point; the second only where more than one thread may be used
GRID: Tuple[Dict[str, Any], ...] = (
    {"memory": "low"},  # activations are rounded to 8 bits at run time where weights have 8 or 4; without effect on float files
    {"precision": "low"},
    {"memory": "low", "precision": "low"},
    {"winograd_memory": 0},
)
GRID_THREADED: Tuple[Dict[str, Any], ...] = ({"power": "high"},)
CONVERTED = "__matmul_converted"  # how the names of matrix products end, which MNN stores as convolutions


class Session:
    """One loaded model. Feeds are cast to what the file takes, results to the types of the source."""

    def __init__(self, folder: str, settings: Mapping[str, Any]):
        mnn, chosen = import_runtime(), choose(settings)
        level = chosen.pop("winograd_memory")
        self._expr = mnn.expr
        self._manager = mnn.nn.create_runtime_manager((chosen,))
        self._manager.set_hint(WINOGRAD_MEMORY_LEVEL, level)
        path = os.path.join(folder, MODEL)
        os.stat(path)  # FileNotFoundError, where MNN has one message for whatever it cannot read
        try:
            self._module = mnn.nn.load_module_from_file(path, [], [], runtime_manager=self._manager)
        except SystemError as error:  # which hides what MNN has raised
            raise RuntimeError(f"MNN cannot read {MODEL}: it is not an MNN file, or it is truncated") from error
        info = self._module.get_info()
        self.inputs, self.outputs = read_ports(info["bizCode"])
        self._given = [(name, var.dtype, _numpy_type(mnn, var.dtype)) for name, var in zip(info["inputNames"], info["inputs"])]
        self._named: List[str] = info["outputNames"]

    def run(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        expr = self._expr
        given = {name: np.ascontiguousarray(feeds[name], kind) for name, _, kind in self._given}
        variables = [expr.const(given[name], list(given[name].shape), expr.NCHW, kind) for name, kind, _ in self._given]
        results = self._module.forward(variables)
        if len(results) != len(self._named):
            raise RuntimeError(refusal(given))
        # read() shows memory that belongs to the variable, which the next call writes anew
        found = {name: result.read() for name, result in zip(self._named, results)}
        return {port["name"]: np.array(found[port["name"]], plain_type(port)) for port in self.outputs}


def refusal(given: Mapping[str, np.ndarray]) -> str:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in given.items())
    return f"MNN does not run this model with inputs of these shapes: {shapes}; its own words are above"


def plain_type(port: Mapping[str, Any]) -> np.dtype[Any]:
    """The type of an output as the source gives it: float32 for any float."""
    kind = np.dtype(port["dtype"])
    return np.dtype(np.float32) if kind.kind == "f" else kind


def _numpy_type(mnn: Any, kind: Any) -> Any:
    """What MNN's own types are in numpy; wider integers and bool are int32 in a file."""
    expr = mnn.expr
    known = {expr.float: np.float32, expr.int: np.int32, expr.uint8: np.uint8, expr.int8: np.int8}
    return known[kind]


def read_ports(text: str) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
    """Inputs and outputs of the source (name, shape, dtype), from the text that a file has for its maker's use: MNN's files know neither
    the shapes of outputs, nor which axes are open, nor int64."""
    try:
        told = json.loads(text)
        return told["inputs"], told["outputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{MODEL} does not describe its inputs and outputs: it was not made by Edgewise") from error


def choose(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """Settings as in ENGINE, with defaults, in MNN's own words and numbers. ValueError for an unknown setting or value.

    precision `low`: MNN computes in float16 where the processor does (ARM v8.2); `low_bf16`: in bfloat16. memory `low`: the weights stay
    packed, and the inputs of convolutions and matrix products are rounded to 8 bits with a range that is found at run time.
    """
    chosen = dict(settings)
    words = {
        "backend": CPU,
        "numThread": _within(chosen, "threads", 1),
        "precision": PRECISION[_within(chosen, "precision", "high")],
        "memory": MEMORY[_within(chosen, "memory", "normal")],
        "power": POWER[_within(chosen, "power", "normal")],
        "winograd_memory": _within(chosen, "winograd_memory", 3),
    }
    if chosen:
        raise ValueError(f"unknown engine settings {sorted(chosen)}; allowed: {', '.join(ENGINE)}")
    return words


def _within(chosen: Dict[str, Any], key: str, usual: Any) -> Any:
    value, allowed = chosen.pop(key, usual), ENGINE[key]
    if value not in allowed:
        told = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise ValueError(f"engine.{key}: {value!r}; allowed: {told}")
    return value


def import_runtime() -> Any:
    """MNN, without the line on stdout with which it describes the processor."""
    if RUNTIME in sys.modules:
        return sys.modules[RUNTIME]
    with _discard_stdout():
        import MNN
    return MNN


@contextlib.contextmanager
def _discard_stdout() -> Iterator[None]:
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C has kept of it until now
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def operator_type(name: str, kind: str) -> str:
    """The type of an operator with weights as the source has it: MNN stores matrix products as convolutions."""
    return "MatMul" if name.endswith(CONVERTED) else kind


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """Load folder/model.mnn; settings as for `choose`. RuntimeError where MNN refuses the file."""
    return Session(folder, settings)


def versions() -> Dict[str, str]:
    return {PACKAGE: import_runtime().version(), "numpy": np.__version__}
