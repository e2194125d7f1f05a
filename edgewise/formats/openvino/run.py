"""Run model.xml with OpenVINO on the CPU. Shipped to the device: standard library, numpy and openvino only; Python 3.9."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, Mapping, Tuple

import numpy as np

RUNTIME = "openvino"
PACKAGE = "openvino"
OLDEST = "2025.3"  # the oldest release that runs these files
COMPANIONS: Dict[str, Tuple[str, str]] = {}
MODEL = "model.xml"
ENGINE = {
    "threads": range(1, 1025),
    "inference_precision": ("f32", "bf16", "f16"),
    "performance": ("latency", "throughput"),
    "streams": range(1, 257),
    "hyper_threading": (True, False),
    "pinning": (True, False),
    "static_batch": (False, True),
}
AS_WRITTEN = None
REDUCED_PRECISION: Dict[str, Tuple[Any, ...]] = {"inference_precision": ("bf16", "f16")}
# what `engine: auto` tries, point by point; the second only where more than one thread may be used
GRID: Tuple[Dict[str, Any], ...] = (
    {"static_batch": True},
    {"inference_precision": "bf16"},  # where the outputs stay within the scheme's tolerance
    {"inference_precision": "f16"},
    {"performance": "throughput"},
    {"pinning": False},
)
GRID_THREADED: Tuple[Dict[str, Any], ...] = ({"hyper_threading": False},)

# `import openvino` would fork a process that sends usage statistics, in the middle of a measurement; without this it uses its stub.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


class Session:
    """One compiled model. Feeds are cast to what the file takes; floating results come back as float32.

    Inputs are written into tensors that stay: handed to every call anew they cost 6 % of a MobileNetV2 at 64x64.
    """

    def __init__(self, model: Any, compiled: Any):
        """model: the file. compiled: of it, where a port may have further names, of what the runtime folds behind it."""
        self._request = compiled.create_infer_request()
        self._types = [port.get_element_type() for port in compiled.inputs]
        self._held: Dict[int, np.ndarray] = {}
        self.inputs = [_describe(own, port) for own, port in zip(model.inputs, compiled.inputs)]
        self.outputs = [_describe(own, port) for own, port in zip(model.outputs, compiled.outputs)]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        for index, described in enumerate(self.inputs):
            array = feeds[described["name"]]
            held = self._held.get(index)
            if held is None or held.shape != array.shape:
                held = self._hold(index, array.shape)
            np.copyto(held, array, casting="unsafe")
        self._request.infer(share_outputs=True)
        return {t["name"]: _copied(self._request.get_output_tensor(index).data) for index, t in enumerate(self.outputs)}

    def _hold(self, index: int, shape: Tuple[int, ...]) -> np.ndarray:
        """The memory that the runtime reads an input from; its request keeps it alive."""
        import openvino

        tensor = openvino.Tensor(self._types[index], openvino.Shape(shape))
        self._request.set_input_tensor(index, tensor)
        self._held[index] = tensor.data
        return self._held[index]


def _describe(own: Any, port: Any) -> dict[str, Any]:
    """own: the port in the file, which has its name."""
    shape = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    return {"name": own.get_any_name(), "shape": shape, "dtype": np.dtype(port.get_element_type().to_dtype()).name}


def _copied(array: np.ndarray) -> np.ndarray:
    return np.array(array, np.float32 if array.dtype.kind == "f" else array.dtype)


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """Load folder/model.xml; settings as for `compiled`."""
    return Session(*compiled(folder, settings))


def compiled(folder: str, settings: Mapping[str, Any], **more: Any) -> Tuple[Any, Any]:
    """The file as an openvino.Model, and compiled as an openvino.CompiledModel; `more`: further properties of the CPU plugin.

    settings: as in ENGINE; conf/format/openvino.yaml says what they mean. Float parts are computed in f32 unless asked otherwise:
    OpenVINO itself would pick bf16 where the processor has it, and call that fp32. ValueError for an unknown setting.
    """
    import openvino

    chosen = dict(settings)
    properties = {
        "PERFORMANCE_HINT": str(chosen.pop("performance", "latency")).upper(),
        "NUM_STREAMS": str(chosen.pop("streams", 1)),
        "CACHE_DIR": "",  # a cache would make the second load of a file cheaper than the first
        "INFERENCE_NUM_THREADS": int(chosen.pop("threads", 1)),
        "INFERENCE_PRECISION_HINT": chosen.pop("inference_precision", "f32"),
        "ENABLE_HYPER_THREADING": bool(chosen.pop("hyper_threading", True)),
        "ENABLE_CPU_PINNING": bool(chosen.pop("pinning", True)),
        **more,
    }
    static_batch = bool(chosen.pop("static_batch", False))
    if chosen:
        raise ValueError(f"unknown engine settings {sorted(chosen)}; allowed: {', '.join(ENGINE)}")
    core = openvino.Core()
    model = core.read_model(os.path.join(folder, MODEL))
    if static_batch:
        model.reshape({port: _one_sample(port) for port in model.inputs})
    made = core.compile_model(model, "CPU", properties)
    if _grows(model) or _fuses_integers(model, made):
        made = core.compile_model(model, "CPU", {**properties, "SNIPPETS_MODE": "DISABLE"})
    return model, made


def _grows(model: Any) -> bool:
    """Whether an input is a cache that a Concat makes longer along an axis that is open, as that of keys and values. OpenVINO 2026.4 makes
    one kernel of the attention behind it, which gives wrong answers from the 16th step on where the cache starts empty."""
    readers = ((port, target.get_node()) for port in model.inputs for target in port.get_target_inputs())
    return any(
        node.get_type_name() == "Concat" and port.get_partial_shape()[node.get_attributes()["axis"]].is_dynamic for port, node in readers
    )


def _fuses_integers(model: Any, made: Any) -> bool:
    """Whether matrix products with integer weights became part of a generated kernel: on one thread OpenVINO 2026.4 makes one kernel of
    several products of fixed size, and with integer weights it gives zeros."""
    if model.is_dynamic() or all(node.get_type_name() != "FakeQuantize" for node in model.get_ops()):
        return False
    kernels = (node for node in made.get_runtime_model().get_ops() if node.get_rt_info()["layerType"].value == "Subgraph")
    return any(value.get_element_type().get_type_name() in ("i8", "u8") for node in kernels for value in _constants(node))


def _constants(node: Any) -> list[Any]:
    """The inputs of a node of a runtime model that are constants."""
    return [value for value in node.input_values() if value.get_node().get_rt_info()["layerType"].value == "Const"]


def _one_sample(port: Any) -> Any:
    """The shape of an input with one sample in the place of any number."""
    shape = port.get_partial_shape()
    if shape.rank.is_static and len(shape) and shape[0].is_dynamic:
        shape[0] = 1
    return shape


def versions() -> dict[str, str]:
    import openvino

    return {"openvino": openvino.get_version().split("-")[0], "numpy": np.__version__}
