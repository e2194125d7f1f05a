"""The user's own Keras model, as it is: a .keras or .h5 file.

models/source/ then holds the file, probe.npz as every source, and weights.safetensors: the kernels of its layers in torch's layout
(output channels first) under torch's type names, so that one matcher finds the layers of any source in a converted file.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
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

FORMAT = "keras"
REQUIRES = {"tensorflow": "keras", "keras": "keras", "safetensors": "keras"}
SUFFIXES = (".keras", ".h5", ".hdf5")
PROBE_SAMPLES = 16
NORMALIZED = ("softmax", "sigmoid")


@dataclass(frozen=True, kw_only=True)
class Settings:
    path: str = option(help="a .keras or .h5 file, as model.save writes it")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    from safetensors.numpy import save_file

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    model = load(path)
    check(path, model, manifest)
    probe = samples.feeds(np.resize(samples.indices("calibration"), PROBE_SAMPLES))
    scores = np.asarray(model(list(probe.values()), training=False), np.float32)
    held = {name: (kind, kernel) for name, kind, kernel in kernels(model)}
    copied = folder / f"model{path.suffix}"
    shutil.copyfile(path, copied)
    save_file({f"{name}.weight": np.ascontiguousarray(kernel) for name, (_, kernel) in held.items()}, folder / "weights.safetensors")
    stored: dict[str, Any] = {f"in:{name}": array for name, array in probe.items()} | {"out:logits": scores}
    np.savez(folder / "probe.npz", **stored)
    layers = {name: {"type": kind, "weight": f"{name}.weight", "shape": [*kernel.shape]} for name, (kind, kernel) in held.items()}
    return {
        "format": FORMAT,
        "inputs": [{"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype} for tensor in manifest.inputs],
        "outputs": [{"name": "logits", "shape": [None, scores.shape[1]], "dtype": "float32", "meaning": meaning(model)}],
        "details": {"layers": layers, "parameters": int(model.count_params()), "file": copied.name},
        "tools": versions(),
        "weights": copied.name,
        "training": {"accuracy_validation": None, "epochs": 0, "curve": []},
    }


def load(path: Path) -> Any:
    """The model. ModelError where the file is none, or would run code of its own (Lambda layers)."""
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ModelError(
            f"model.path: {path} is not a file that ends in {', '.join(SUFFIXES)}; save the model with model.save('model.keras')"
        )
    keras = import_keras()
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras has no common class for what a damaged or foreign file does to it
        raise ModelError(f"model.path: Keras {keras.__version__} cannot load {path}: {' '.join(str(error).split())[:240]}") from error


def import_keras() -> Any:
    """Keras on TensorFlow, on the CPU. What its C++ side prints on importing, before its log level holds, is thrown away."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
            import keras

            keras.ops.zeros(1)  # the device is looked for now, not at the first use
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    return keras


def check(path: Path, model: Any, data: Manifest) -> None:
    """ModelError unless the model takes the data's inputs and gives one score per label."""
    wanted = [[*tensor.shape[1:]] for tensor in data.inputs]
    taken = [[*tensor.shape[1:]] for tensor in model.inputs]
    if taken != wanted:
        raise ModelError(
            f"model.path: {path} takes {taken}, the data gives {wanted} (without the batch); "
            "set data.image_size, data.channels and data.channels_last so that they fit"
        )
    given = [[*tensor.shape[1:]] for tensor in model.outputs]
    if given != [[len(data.labels)]]:
        raise ModelError(f"model.path: {path} gives {given}, the data has {len(data.labels)} labels ({', '.join(data.labels)})")


def kernels(model: Any, prefix: str = "") -> Iterator[tuple[str, str, np.ndarray]]:
    """(path, torch's name of the type, kernel in torch's layout) of the layers whose weights can be found in a converted file."""
    for layer in model.layers:
        path, kind = f"{prefix}{layer.name}", type(layer).__name__
        if hasattr(layer, "layers"):
            yield from kernels(layer, f"{path}.")
        elif kind == "DepthwiseConv2D":
            height, width, channels, multiplier = layer.kernel.shape
            yield path, "Conv2d", np.asarray(layer.kernel).transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
        elif kind in ("Conv1D", "Conv2D", "Conv3D"):
            yield path, kind.lower().capitalize(), np.moveaxis(np.asarray(layer.kernel), (-1, -2), (0, 1))
        elif kind == "Conv2DTranspose":
            yield path, "ConvTranspose2d", np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        elif kind == "Dense":
            yield path, "Linear", np.asarray(layer.kernel).T
        elif kind == "Embedding":
            yield path, "Embedding", np.asarray(layer.embeddings)


def meaning(model: Any) -> str:
    """Whether the scores are logits, or probabilities already."""
    last = model.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", type(last).__name__.lower())
    return "probabilities" if activation in NORMALIZED else "logits"


def versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("keras", "tensorflow")}
