"""The user's own Keras model, imported unchanged: a .keras or .h5 file, or a SavedModel directory.

A SavedModel is a TensorFlow program and can read and write files: use only those of people you trust.

models/source/ then holds the model, probe.npz as every source, and weights.safetensors: the kernels of its layers in torch's layout
(output channels first) under torch's type names, so that one matcher finds the layers of any source in a converted file. A SavedModel is
a graph without layers: its layers are those of the converted file.
"""

import os
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.config.settings import option
from edgewise.errors import ModelError
from edgewise.sources import imported
from edgewise.sources.inspection import Inspection, Port, one_line, product, total

FORMAT = "keras"
REQUIRES = {"tensorflow": "keras", "keras": "keras", "safetensors": "keras"}
ISOLATED = True
SUFFIXES = (".keras", ".h5", ".hdf5")
RECOGNIZED = (*SUFFIXES, "a SavedModel directory")  # shown by `edgewise inspect` when no importer fits
WEIGHTS = "weights.safetensors"
SIGNATURE = "serving_default"


@dataclass(frozen=True, kw_only=True)
class Settings(imported.Settings):
    path: str = option(help="a .keras or .h5 file, as model.save writes it, or a SavedModel directory")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    from safetensors.numpy import save_file

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    model = load_saved_model(path, import_keras) if path.is_dir() else Network(load(path))
    imported.check_inputs(path, model.inputs, manifest)
    if imported.check_outputs(path, model.outputs, manifest) or len(model.outputs) > 1:
        raise ModelError(f"model.path: {path} returns {imported.format_shapes(model.outputs)}; save it with the scores as its only output")
    copied = folder / f"model{path.suffix if path.is_file() else ''}"
    (shutil.copyfile if path.is_file() else shutil.copytree)(path, copied)
    save_file({f"{name}.weight": np.ascontiguousarray(kernel) for name, (_, kernel) in model.kernels.items()}, folder / WEIGHTS)
    layers = {n: {"type": kind, "weight": f"{n}.weight", "shape": [*kernel.shape]} for n, (kind, kernel) in model.kernels.items()}
    return {
        **imported.finish(settings, model.score, manifest, samples, folder),
        "format": FORMAT,
        "details": {"layers": layers, "parameters": model.parameters, "file": copied.name},
        "tools": versions(),
        "weights": copied.name if copied.is_file() else f"{copied.name}/saved_model.pb",
    }


def recognizes(path: Path) -> bool:
    return (path / "saved_model.pb").is_file() if path.is_dir() else path.suffix in SUFFIXES


class Network:
    """A Keras model with the interface of SavedModel. inputs, outputs: shapes without the batch, None for a dynamic dimension."""

    def __init__(self, model: Any):
        self.model = model
        self.inputs, self.outputs = ([[*tensor.shape[1:]] for tensor in side] for side in (model.inputs, model.outputs))
        self.kernels = {name: (kind, kernel) for name, kind, kernel in iterate_kernels(model)}
        self.parameters = int(model.count_params())

    def score(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        given = [array.astype(tensor.dtype) for array, tensor in zip(feeds.values(), self.model.inputs, strict=True)]
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # about the nesting of inputs, for models of older Keras
            return np.asarray(self.model(given if len(given) > 1 else given[0], training=False), np.float32)


def load(path: Path) -> Any:
    """The model. ModelError if the file cannot be loaded, or would run code (Lambda layers)."""
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ModelError(
            f"model.path: {path} is not a file that ends in {', '.join(SUFFIXES)}, nor a SavedModel;"
            " save the model with model.save('model.keras')"
        )
    keras = import_keras()
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras has no common exception for damaged or foreign files
        raise ModelError(f"model.path: Keras {keras.__version__} cannot load {path}: {one_line(error)}") from error


def import_keras() -> Any:
    """Keras on TensorFlow, on the CPU, without what its C++ code prints before the log level takes effect."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
            import keras

            keras.ops.zeros(1)  # initializes the device now instead of at first use
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    return keras


def iterate_kernels(model: Any, prefix: str = "") -> Iterator[tuple[str, str, np.ndarray]]:
    """(path, torch's name of the type, kernel in torch's layout) of layers whose weights can be recognized in a converted file."""
    for layer in model.layers:
        path, kind = f"{prefix}{layer.name}", type(layer).__name__
        if hasattr(layer, "layers"):
            yield from iterate_kernels(layer, f"{path}.")
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


def versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("keras", "tensorflow")}


class SavedModel:
    """The default signature. inputs, outputs: shapes without the batch, None for a dynamic dimension, sorted by name."""

    def __init__(self, loaded: Any):
        self.loaded = loaded  # keeps the variables alive
        self.signature = loaded.signatures[SIGNATURE]
        self.specs = dict(sorted(self.signature.structured_input_signature[1].items()))
        self.inputs = [spec.shape.as_list()[1:] for spec in self.specs.values()]
        self.outputs = [tensor.shape.as_list()[1:] for tensor in self.signature.structured_outputs.values()]
        self.kernels: dict[str, tuple[str, np.ndarray]] = {}
        self.parameters = sum(int(np.prod(variable.shape)) for variable in self.signature.variables)

    def score(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        import tensorflow as tf

        given = zip(self.specs.items(), feeds.values(), strict=True)
        (result,) = self.signature(**{name: tf.constant(array, spec.dtype) for (name, spec), array in given}).values()
        return np.asarray(result, np.float32)


def load_saved_model(path: Path, import_keras: Callable[[], Any]) -> SavedModel:
    """ModelError if the folder is not a SavedModel or has no default signature. import_keras: imports TensorFlow quietly."""
    if not (path / "saved_model.pb").is_file():
        raise ModelError(f"model.path: {path} is a folder without saved_model.pb; name a file, or a folder that model.export has written")
    import_keras()
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow has no common exception for damaged files
        raise ModelError(f"model.path: TensorFlow {tf.__version__} cannot load {path}: {one_line(error)}") from error
    if SIGNATURE not in loaded.signatures or not loaded.signatures[SIGNATURE].structured_input_signature[1]:
        names = ", ".join(loaded.signatures) or "none"
        raise ModelError(
            f"model.path: {path} has no signature {SIGNATURE} with inputs (it has: {names}); write it with model.export(FOLDER)"
        )
    return SavedModel(loaded)


def inspect(path: Path) -> Inspection:
    return _inspect_saved_model(path) if path.is_dir() else _inspect_file(path)


def _inspect_file(path: Path) -> Inspection:
    model = load(path)
    layers = list(_layers(model))
    return Inspection(
        kind=f"Keras model, {path.suffix} file, {len(layers)} layers",
        inputs=tuple(_port(tensor) for tensor in model.inputs),
        outputs=tuple(_port(tensor) for tensor in model.outputs),
        operators=Counter(type(layer).__name__ for layer in layers),
        parameters=int(model.count_params()),
        multiply_adds=total([_multiply_adds(layer) for layer in layers]),
        model={"name": "keras_file", "path": str(path)},
    )


def _inspect_saved_model(path: Path) -> Inspection:
    model = load_saved_model(path, import_keras)
    functions = model.signature.graph.as_graph_def().library.function
    operators = Counter(node.op for function in functions for node in function.node_def)
    specs = [(name, spec) for name, spec in (*model.specs.items(), *model.signature.structured_outputs.items())]
    ports = [Port(name, tuple(spec.shape.as_list()), spec.dtype.name) for name, spec in specs]
    return Inspection(
        kind=f"TensorFlow SavedModel, signature {SIGNATURE}",
        inputs=tuple(ports[: len(model.specs)]),
        outputs=tuple(ports[len(model.specs) :]),
        operators=operators,
        parameters=model.parameters,
        notes=("for its multiply-adds, inspect the converted file, models/tflite/model.tflite, after a run",),
        model={"name": "keras_file", "path": str(path)},
    )


def _port(tensor: Any) -> Port:
    return Port(tensor.name, tuple(tensor.shape), str(tensor.dtype))


def _layers(model: Any) -> Any:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer


def _multiply_adds(layer: Any) -> int | None:
    kind = type(layer).__name__
    if kind in ("Conv1D", "Conv2D", "Conv3D"):
        return product(layer.output.shape[1:], layer.kernel.shape[:-1])
    if kind == "DepthwiseConv2D":
        return product(layer.output.shape[1:], layer.kernel.shape[:2])
    if kind == "Conv2DTranspose":  # kernel [height, width, out, in]
        return product(layer.input.shape[1:], layer.kernel.shape[:3])
    return product(layer.output.shape[1:], layer.kernel.shape[:1]) if kind == "Dense" else 0
