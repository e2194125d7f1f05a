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
from stages.core.samples import Samples
from stages.core.settings import option

FORMAT = "tflite"
REQUIRES = {"ai_edge_litert": "tflite"}
PROBE_SAMPLES = 16
FILE = "model.tflite"


@dataclass(frozen=True, kw_only=True)
class Settings:
    path: str = option(help="a .tflite file with one signature, or with none")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    from importlib import metadata

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    interpreter = load(path)
    check(path, interpreter, manifest)
    probe = samples.feeds(np.resize(samples.indices("calibration"), PROBE_SAMPLES))
    scores = np.concatenate([score(interpreter, [array[i : i + 1] for array in probe.values()]) for i in range(PROBE_SAMPLES)])
    shutil.copyfile(path, folder / FILE)
    stored: dict[str, Any] = {f"in:{name}": array for name, array in probe.items()} | {"out:logits": scores}
    np.savez(folder / "probe.npz", **stored)
    return {
        "format": FORMAT,
        "inputs": [{"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype} for tensor in manifest.inputs],
        "outputs": [{"name": "logits", "shape": [None, scores.shape[1]], "dtype": "float32", "meaning": "logits"}],
        "details": {"layers": {}, "file": FILE},
        "tools": {"ai-edge-litert": metadata.version("ai-edge-litert")},
        "weights": FILE,
        "training": {"accuracy_validation": None, "epochs": 0, "curve": []},
    }


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
    wanted = [[1, *tensor.shape[1:]] for tensor in data.inputs]
    taken = [detail["shape"].tolist() for detail in interpreter.get_input_details()]
    if taken != wanted:
        raise ModelError(
            f"model.path: {path} takes {taken}, the data gives {wanted}; "
            "set data.image_size, data.channels and data.channels_last so that they fit"
        )
    given = [detail["shape"].tolist() for detail in interpreter.get_output_details()]
    if given != [[1, len(data.labels)]]:
        raise ModelError(f"model.path: {path} gives {given}, the data has {len(data.labels)} labels ({', '.join(data.labels)})")


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
