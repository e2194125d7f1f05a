"""The user's own TFLite file, imported unchanged: float, to be quantized, or already quantized, to be evaluated and measured."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.config.settings import option
from edgewise.errors import ModelError
from edgewise.sources import imported
from edgewise.sources.inspection import Inspection, Port, one_line

FORMAT = "tflite"
REQUIRES = {"ai_edge_litert": "tflite"}
ISOLATED = True
RECOGNIZED = (".tflite",)  # shown by `edgewise inspect` when no importer fits
FILE = "model.tflite"
REAL = ("float32", "float16")
SCHEMES = {  # (weights, activations) of the largest constant -> scheme
    ("float16", "float32"): "fp16",
    ("int8", "float32"): "int8-dynamic",
    ("int8", "int8"): "int8-static",
    ("int8", "int16"): "int16x8-static",
    ("int4", "float32"): "int4-weight",
}


@dataclass(frozen=True, kw_only=True)
class Settings(imported.Settings):
    path: str = option(help="a .tflite file with at most one signature")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    from importlib import metadata

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    interpreter = load(path)
    check_fit(path, interpreter, manifest)
    shutil.copyfile(path, folder / FILE)
    return {
        **imported.finish(settings, lambda feeds: run(interpreter, feeds), manifest, samples, folder),
        "format": FORMAT,
        "details": {"layers": {}, "file": FILE},
        "tools": {"ai-edge-litert": metadata.version("ai-edge-litert")},
        "weights": FILE,
    }


def recognizes(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".tflite" or _is_tflite(path))


def _is_tflite(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(8)[4:] == b"TFL3"


def load(path: Path) -> Any:
    """An interpreter of the file. ModelError if it is not TFLite, or the runtime rejects it."""
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise ModelError(f"model.path: {path} is not a file; name a .tflite file")
    if not _is_tflite(path):
        raise ModelError(f"model.path: {path} is not a TFLite file (bytes 4 to 8 are not TFL3); name a .tflite file")
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"model.path: the TFLite runtime rejects {path}: {one_line(error)}") from error
    return interpreter


def check_fit(path: Path, interpreter: Any, data: Manifest) -> None:
    """ModelError unless the file accepts the data's inputs, with fixed shapes, and returns one score per label."""
    details = interpreter.get_input_details()
    for detail in details:
        if -1 in detail["shape_signature"][1:]:
            shape = imported.format_shapes([[None if side < 0 else side for side in detail["shape_signature"][1:].tolist()]])
            raise ModelError(f"model.path: {path}: input {detail['name']} has dynamic dimensions {shape}; convert it again with fixed ones")
    imported.check_inputs(path, [detail["shape"].tolist()[1:] for detail in details], data)
    given = [detail["shape"].tolist()[1:] for detail in interpreter.get_output_details()]
    imported.check_outputs(path, given, data)
    if len(given) > 1:
        raise ModelError(f"model.path: {path} returns {imported.format_shapes(given)}; convert it again with the scores as its only output")


def run(interpreter: Any, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 [n, labels], one call per sample."""
    count = len(next(iter(feeds.values())))
    return np.concatenate([run_one(interpreter, [array[i : i + 1] for array in feeds.values()]) for i in range(count)])


def run_one(interpreter: Any, arrays: list[np.ndarray]) -> np.ndarray:
    """float32 [1, labels] for one sample; integer inputs and outputs are quantized and dequantized."""
    for detail, array in zip(interpreter.get_input_details(), arrays, strict=True):
        scale, zero_point = detail["quantization"]
        if scale:
            limits = np.iinfo(detail["dtype"])
            array = np.clip(np.rint(array / scale) + zero_point, limits.min, limits.max)
        interpreter.set_tensor(detail["index"], array.astype(detail["dtype"]))
    interpreter.invoke()
    (detail,) = interpreter.get_output_details()
    scale, zero_point = detail["quantization"]
    stored = interpreter.get_tensor(detail["index"]).astype(np.float32)
    scores: np.ndarray = (stored - zero_point) * np.float32(scale) if scale else stored
    return scores


def inspect(path: Path) -> Inspection:
    """Reads the flatbuffer without running it."""
    model = read_flatbuffer(path)
    if not model.subgraphs or not len(model.subgraphs[0].inputs):
        raise ModelError(f"model.path: {path} has no inputs; convert it again with its inputs")
    graph, operators = model.subgraphs[0], read_enumeration("BuiltinOperator")
    kinds = [operator_name(model, operator, operators) for operator in graph.operators]
    weights = [tensor for tensor in graph.tensors if _is_weight(model, tensor)]
    scheme = _find_scheme(model, graph)
    return Inspection(
        kind=f"TFLite model, {'float' if scheme is None else f'quantized ({scheme})'}, {len(model.subgraphs)} graph(s)",
        inputs=tuple(make_port(graph.tensors[i]) for i in graph.inputs),
        outputs=tuple(make_port(graph.tensors[i]) for i in graph.outputs),
        operators=Counter(kinds),
        parameters=sum(prod(_shape(tensor)) for tensor in weights),
        multiply_adds=sum(_multiply_adds(graph, operator, name) for operator, name in zip(graph.operators, kinds, strict=True)),
        model={"name": "tflite_file", "path": str(path)},
        schemes=None if scheme is None else (scheme,),
    )


def read_flatbuffer(path: Path) -> Any:
    """The file as a ModelT. ModelError if it is not TFLite, or damaged."""
    from ai_edge_litert.tools import flatbuffer_utils

    if not _is_tflite(path):
        raise ModelError(f"model.path: {path} is not a TFLite file (bytes 4 to 8 are not TFL3); name a .tflite file")
    try:
        return flatbuffer_utils.read_model(str(path))
    except Exception as error:  # the reader has no checks of its own and fails in many ways
        raise ModelError(f"model.path: {path} is truncated or damaged ({type(error).__name__}); copy or convert it again") from error


def read_enumeration(enumeration: str) -> dict[int, str]:
    """Number -> name in the schema that ships with the runtime."""
    from ai_edge_litert import schema_py_generated

    return {value: name for name, value in vars(getattr(schema_py_generated, enumeration)).items() if not name.startswith("_")}


def operator_name(model: Any, operator: Any, operators: dict[int, str]) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    name = operators[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return f"CUSTOM {code.customCode.decode()}" if name == "CUSTOM" else name


def make_port(tensor: Any) -> Port:
    signature = _shape(tensor) if tensor.shapeSignature is None else tensor.shapeSignature
    scales = _scales(tensor)
    how = (float(scales[0]), _zero_point(tensor)) if len(scales) == 1 else None
    return Port(tensor.name.decode(), tuple(None if side < 0 else int(side) for side in signature), _dtype(tensor), how)


def _scales(tensor: Any) -> Sequence[float]:
    """The scales of a quantized tensor, one or one per channel; none for a float tensor, which may have no quantization table at all."""
    table = tensor.quantization
    return () if table is None or table.scale is None else tuple(table.scale)


def _zero_point(tensor: Any) -> int:
    """Of a tensor with one scale; a file may leave it out where it is 0."""
    points = tensor.quantization.zeroPoint
    return 0 if points is None or len(points) == 0 else int(points[0])


def _dtype(tensor: Any) -> str:
    return read_enumeration("TensorType")[tensor.type].lower()


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(side) for side in tensor.shape)


def _is_weight(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0 and (_dtype(tensor) in (*REAL, "int8", "uint8", "int4", "int16") or len(_scales(tensor)) > 0)


def _find_scheme(model: Any, graph: Any) -> str | None:
    """By the types of the largest constant and of its operator's output; None for a float file."""
    best: tuple[int, str, str] = (0, "float32", "float32")
    for operator in graph.operators:
        for index in operator.inputs:
            tensor = graph.tensors[index]
            if index >= 0 and _is_weight(model, tensor):
                best = max(best, (prod(_shape(tensor)), _dtype(tensor), _dtype(graph.tensors[operator.outputs[0]])))
    weights, activations = (dtype.removeprefix("u") for dtype in best[1:])
    return None if weights == "float32" else SCHEMES.get((weights, activations), f"{weights} weights")


def _multiply_adds(graph: Any, operator: Any, name: str) -> int:
    if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV"):
        return 0
    given = [_shape(graph.tensors[index]) for index in operator.inputs]
    out: int = prod(np.abs(_shape(graph.tensors[operator.outputs[0]])).tolist())
    if name == "TRANSPOSE_CONV":  # shape of the output, weights [out, h, w, in], input
        return int(prod(given[2]) * prod(given[1][:3]))
    if name == "DEPTHWISE_CONV_2D":
        return int(out * prod(given[1][1:3]))
    return int(out * (given[0][-1] if name == "BATCH_MATMUL" else prod(given[1][1:])))
