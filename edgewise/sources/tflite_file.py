"""The user's own TFLite file, as it is: float, to be quantized further, or quantized already, to be scored and measured."""

import shutil
from collections import Counter
from collections.abc import Mapping
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
from edgewise.sources.inspection import Inspection, Port

FORMAT = "tflite"
REQUIRES = {"ai_edge_litert": "tflite"}
ISOLATED = True
RECOGNIZED = (".tflite",)  # what edgewise.inspect.command shows it
FILE = "model.tflite"


@dataclass(frozen=True, kw_only=True)
class Settings(imported.Settings):
    path: str = option(help="a .tflite file with one signature, or with none")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    from importlib import metadata

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    interpreter = load(path)
    check(path, interpreter, manifest)
    shutil.copyfile(path, folder / FILE)
    return {
        **imported.finish(settings, lambda feeds: scores(interpreter, feeds), manifest, samples, folder),
        "format": FORMAT,
        "details": {"layers": {}, "file": FILE},
        "tools": {"ai-edge-litert": metadata.version("ai-edge-litert")},
        "weights": FILE,
    }


def recognizes(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".tflite" or path.open("rb").read(8)[4:] == b"TFL3")


def look(path: Path) -> Inspection:

    return describe(path)


def load(path: Path) -> Any:
    """An interpreter of the file. ModelError where it is none, or the runtime refuses it."""
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise ModelError(f"model.path: {path} is not a file; name a .tflite file")
    with path.open("rb") as stream:
        if stream.read(8)[4:] != b"TFL3":
            raise ModelError(f"model.path: {path} is not a TFLite file (its bytes 4 to 8 are not TFL3)")
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"model.path: the runtime refuses {path}: {' '.join(str(error).split())[:240]}") from error
    return interpreter


def check(path: Path, interpreter: Any, data: Manifest) -> None:
    """ModelError unless the file takes the data's inputs, one sample at a time, and gives one score per label."""
    details = interpreter.get_input_details()
    for detail in details:
        if -1 in detail["shape_signature"][1:]:
            sides = imported.told([[None if side < 0 else side for side in detail["shape_signature"][1:].tolist()]])
            raise ModelError(f"model.path: {path}: input {detail['name']} has open sides {sides}; convert it again with fixed ones")
    imported.check_inputs(path, [detail["shape"].tolist()[1:] for detail in details], data)
    given = [detail["shape"].tolist()[1:] for detail in interpreter.get_output_details()]
    imported.check_outputs(path, given, data)
    if len(given) > 1:
        raise ModelError(f"model.path: {path} gives {imported.told(given)}; convert it again with the scores as its one output")


def scores(interpreter: Any, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 [n, labels], one call a sample."""
    count = len(next(iter(feeds.values())))
    return np.concatenate([score(interpreter, [array[i : i + 1] for array in feeds.values()]) for i in range(count)])


def score(interpreter: Any, arrays: list[np.ndarray]) -> np.ndarray:
    """float32 [1, labels] for one sample; integer inputs and outputs by their scale and zero point."""
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
    answers: np.ndarray = (stored - zero_point) * np.float32(scale) if scale else stored
    return answers


# What a TFLite file expects and is, read from its flatbuffer.

REAL = ("float32", "float16")
HELD_AS = {  # (weights, activations) of the largest constant -> what the file can be measured as
    ("float16", "float32"): "fp16",
    ("int8", "float32"): "int8-dynamic",
    ("int8", "int8"): "int8-static",
    ("int8", "int16"): "int16x8-static",
    ("int4", "float32"): "int4-weight",
}


def describe(path: Path) -> Inspection:
    model = read(path)
    if not model.subgraphs or not len(model.subgraphs[0].inputs):
        raise ModelError(f"model.path: {path} has no inputs; convert it again with what it computes from as inputs")
    graph, operators = model.subgraphs[0], names("BuiltinOperator")
    kinds = [kind(model, operator, operators) for operator in graph.operators]
    weights = [tensor for tensor in graph.tensors if _held(model, tensor)]
    scheme = _held_as(model, graph)
    return Inspection(
        kind=f"TFLite model, {'float' if scheme is None else f'quantized ({scheme})'}, {len(model.subgraphs)} graph(s)",
        inputs=tuple(port(graph.tensors[i]) for i in graph.inputs),
        outputs=tuple(port(graph.tensors[i]) for i in graph.outputs),
        operators=Counter(kinds),
        parameters=sum(prod(_shape(tensor)) for tensor in weights),
        multiply_adds=sum(_multiply_adds(graph, operator, name) for operator, name in zip(graph.operators, kinds, strict=True)),
        model={"name": "tflite_file", "path": str(path)},
        schemes=None if scheme is None else (scheme,),
    )


def read(path: Path) -> Any:
    """ModelError where the file is none, or cut short."""
    from ai_edge_litert.tools import flatbuffer_utils

    with path.open("rb") as stream:
        if stream.read(8)[4:] != b"TFL3":
            raise ModelError(f"model.path: {path} is not a TFLite file (its bytes 4 to 8 are not TFL3)")
    try:
        return flatbuffer_utils.read_model(str(path))
    except Exception as error:  # the flatbuffer reader runs off the end with whatever comes of it
        raise ModelError(f"model.path: {path} is cut short or damaged ({type(error).__name__}); copy or convert it again") from error


def names(enumeration: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated

    return {value: name for name, value in vars(getattr(schema_py_generated, enumeration)).items() if not name.startswith("_")}


def kind(model: Any, operator: Any, operators: dict[int, str]) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    name = operators[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return f"CUSTOM {code.customCode.decode()}" if name == "CUSTOM" else name


def port(tensor: Any) -> Port:
    signature = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    quantization = tensor.quantization
    scaled = quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
    how = (float(quantization.scale[0]), int(quantization.zeroPoint[0])) if scaled else None
    return Port(tensor.name.decode(), tuple(None if side < 0 else int(side) for side in signature), _dtype(tensor), how)


def _dtype(tensor: Any) -> str:
    return names("TensorType")[tensor.type].lower()


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(side) for side in tensor.shape)


def _held(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return (
        data is not None
        and len(data) > 0
        and (_dtype(tensor) in (*REAL, "int8", "uint8", "int4", "int16") or tensor.quantization.scale is not None)
    )


def _held_as(model: Any, graph: Any) -> str | None:
    """By the largest constant and the tensor that its operator gives; None for a float file."""
    best: tuple[int, str, str] = (0, "float32", "float32")
    for operator in graph.operators:
        for index in operator.inputs:
            tensor = graph.tensors[index]
            if index >= 0 and _held(model, tensor):
                best = max(best, (prod(_shape(tensor)), _dtype(tensor), _dtype(graph.tensors[operator.outputs[0]])))
    weights, activations = (dtype.removeprefix("u") for dtype in best[1:])
    return None if weights == "float32" else HELD_AS.get((weights, activations), f"{weights} weights")


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
