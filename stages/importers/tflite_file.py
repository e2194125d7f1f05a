"""The user's own TFLite file, as it is: float, to be quantized further, or quantized already, to be scored and measured."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import artifact
from stages.core.artifact import Manifest
from stages.core.config import Train
from stages.core.errors import ModelError
from stages.core.inspection import Inspection
from stages.core.samples import Samples
from stages.core.settings import option
from stages.importers import imported

FORMAT = "tflite"
REQUIRES = {"ai_edge_litert": "tflite"}
ISOLATED = True
RECOGNIZED = (".tflite",)  # what stages.inspect shows it
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
    from stages.importers import tflite_look

    return tflite_look.look(path)


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
    return (stored - zero_point) * np.float32(scale) if scale else stored
