"""Run a TFLite file: the standard library, numpy and ai_edge_litert, Python 3.9. This file is shipped to the device."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Tuple

import numpy as np

RUNTIME = "ai_edge_litert.interpreter"  # the package alone would load the runtime with the model, and count it as the model's
PACKAGE = "ai-edge-litert"
OLDEST = "2.1"  # the oldest release that runs these files
COMPANIONS: Dict[str, Tuple[str, str]] = {}
ENGINE = {"threads": range(1, 1025), "xnnpack": (True, False)}
AS_WRITTEN = None
REDUCED_PRECISION: Dict[str, Tuple[Any, ...]] = {}
GRID: Tuple[Dict[str, Any], ...] = ({"xnnpack": False},)  # what `engine: auto` tries, beside fewer threads
GRID_THREADED: Tuple[Dict[str, Any], ...] = ()
KEEPING = ("LSTM", "RNN", "SVDF")  # in the names of operators that keep state from run to run


class Session:
    """A loaded file with one signature. `inputs` and `outputs` are as the file has them: names, shapes, its own dtypes."""

    def __init__(self, interpreter: Any):
        self._interpreter = interpreter
        signature = interpreter.get_signature_runner()
        self._inputs = _in_order(signature.get_input_details(), interpreter.get_input_details())
        self._outputs = _in_order(signature.get_output_details(), interpreter.get_output_details())
        self.inputs = [_describe(name, detail) for name, detail in self._inputs.items()]
        self.outputs = [_describe(name, detail) for name, detail in self._outputs.items()]
        self._keeps = any(word in node["op_name"] for node in interpreter._get_ops_details() for word in KEEPING)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call, from the state of a new file. feeds: real values (or integers) by name, in the file's shape. Results that are quantized
        in the file are float32."""
        if self._keeps:
            self._interpreter.reset_all_variables()
        for name, detail in self._inputs.items():
            self._interpreter.set_tensor(detail["index"], quantize(feeds[name], detail))
        self._interpreter.invoke()
        return {name: dequantize(self._interpreter.get_tensor(d["index"]), d) for name, d in self._outputs.items()}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """Load model.tflite of `folder`; settings as for `interpreter`."""
    return Session(interpreter(folder, settings))


def interpreter(folder: str, settings: Mapping[str, Any]) -> Any:
    """An interpreter of `folder`/model.tflite, ready to run. settings: threads; xnnpack, false for the runtime's own kernels alone.
    ValueError for an unknown setting."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    chosen = dict(settings)
    threads, xnnpack = int(chosen.pop("threads", 1)), chosen.pop("xnnpack", True)
    if chosen:
        raise ValueError(f"unknown engine settings {sorted(chosen)}; allowed: {', '.join(ENGINE)}")
    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    model = os.path.join(folder, "model.tflite")
    opened = Interpreter(model_path=model, num_threads=threads, experimental_op_resolver_type=resolver)
    opened.allocate_tensors()
    return opened


def versions() -> dict[str, str]:
    import ai_edge_litert

    return {PACKAGE: ai_edge_litert.__version__}


def quantize(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """Real values in the dtype of a tensor: round(value / scale) + zero_point, saturated, where the tensor has a scale."""
    scale, zero_point = detail["quantization"]
    if scale == 0:
        return values.astype(detail["dtype"], copy=False)
    limits = np.iinfo(detail["dtype"])
    steps = values * np.float32(1 / scale)
    np.rint(steps, out=steps)
    steps += zero_point
    np.clip(steps, limits.min, limits.max, out=steps)
    return steps.astype(detail["dtype"])


def dequantize(stored: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """The real values of a tensor, float32: (stored - zero_point) * scale. Without a scale floating values become float32, others stay."""
    scale, zero_point = detail["quantization"]
    if scale == 0:
        return stored.astype(np.float32, copy=False) if stored.dtype.kind == "f" else stored
    return (stored.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _in_order(named: Mapping[str, Any], listed: Any) -> Dict[str, Any]:
    """The tensors of a signature, which the runtime sorts by name, in the order of the file."""
    places = {detail["index"]: place for place, detail in reversed(list(enumerate(listed)))}
    return dict(sorted(named.items(), key=lambda entry: places[entry[1]["index"]]))


def _describe(name: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "shape": [int(size) for size in detail["shape"]], "dtype": np.dtype(detail["dtype"]).name}
