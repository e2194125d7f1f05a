"""The user's own Keras model, imported unchanged: a .keras or .h5 file, or a SavedModel directory.

A SavedModel is a TensorFlow program and can read and write files: use only those of people you trust.

models/source/ then holds the model, probe.npz as every source, and weights.safetensors: the kernels of its layers in torch's layout
(output channels first) under torch's type names, so that one matcher finds the layers of any source in a converted file. A SavedModel is
a graph without layers: its layers are those of the converted file.

A model in mixed precision, as it is trained on GPUs, has float32 weights, with which layers compute in float16 or bfloat16. Converters read
float32 only, so it is written again with layers that compute in float32; its weights stay as they are. The oracle is still the user's own
file, and how far a variant has to agree with it is a matter of float16, see edgewise.proof.checks.least_sqnr_db.
"""

import os
import shutil
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from edgewise.sources.oracle import Oracle, fit_ports

FORMAT = "keras"
REQUIRES = {"tensorflow": "keras", "keras": "keras", "safetensors": "keras"}
ISOLATED = True
SUFFIXES = (".keras", ".h5", ".hdf5")
RECOGNIZED = (*SUFFIXES, "a SavedModel directory")  # shown by `edgewise inspect` when no importer fits
WEIGHTS = "weights.safetensors"
SIGNATURE = "serving_default"
POLICIES = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}  # Keras' names -> what layers compute in
WIDE = "float32"


@dataclass(frozen=True, kw_only=True)
class Settings(imported.Settings):
    path: str = option(help="a .keras or .h5 file, as model.save writes it, or a SavedModel directory")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    from safetensors.numpy import save_file

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    model = open_session(path)
    fit = fit_ports(path, settings, model, manifest, imported.make_probe(samples))
    precision = find_precision(model.model) if isinstance(model, Network) else None
    copied = folder / f"model{path.suffix if path.is_file() else ''}"
    if precision is not None and isinstance(model, Network):
        copied = copied.with_suffix(".keras")
        widen(model.model).save(copied)
    else:
        (shutil.copyfile if path.is_file() else shutil.copytree)(path, copied)
    save_file({f"{name}.weight": np.ascontiguousarray(kernel) for name, (_, kernel) in model.kernels.items()}, folder / WEIGHTS)
    layers = {n: {"type": kind, "weight": f"{n}.weight", "shape": [*kernel.shape]} for n, (kind, kernel) in model.kernels.items()}
    fields = imported.record(settings, Oracle(model, fit), samples, folder)
    names = {port.name for port in fit.outputs}
    kept = {"kept": [place for place, entry in enumerate(model.outputs) if entry["name"] in names]} if settings.outputs else {}
    return {
        **fields,
        "format": FORMAT,
        "details": {
            **fields["details"],
            **kept,
            **describe(precision),
            "layers": layers,
            "parameters": model.parameters,
            "file": copied.name,
        },
        "tools": versions(),
        "weights": copied.name if copied.is_file() else f"{copied.name}/saved_model.pb",
    }


def describe(precision: str | None) -> dict[str, Any]:
    """Entries of the manifest's details for a model in mixed precision."""
    note = f"layers compute in {precision}, beside float32 weights; in the variants they compute in float32"
    return {"precision": precision, "notes": [note]} if precision else {}


def recognizes(path: Path) -> bool:
    return (path / "saved_model.pb").is_file() if path.is_dir() else path.suffix in SUFFIXES


def open_session(path: Path) -> "Network | SavedModel":
    return load_saved_model(path, import_keras) if path.is_dir() else Network(load(path), path)


class Network:
    """A Keras model as a plugins.Session with any batch, in the order of model.inputs and model.outputs."""

    def __init__(self, model: Any, path: Path):
        check_state(path, model)
        self.model, self.path = model, path
        self.inputs = [_describe(tensor.name, tensor) for tensor in model.inputs]
        self.outputs = [_describe(name, tensor) for name, tensor in zip(name_outputs(model), model.outputs, strict=True)]
        self.kernels = {name: (kind, kernel) for name, kind, kernel in iterate_kernels(model)}
        self.parameters = int(model.count_params())

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import keras

        given = [feeds[entry["name"]].astype(entry["dtype"], copy=False) for entry in self.inputs]
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # about the nesting of inputs, for models of older Keras
                results = keras.tree.flatten(self.model(pack_inputs(self.model, given), training=False))
        except Exception as error:  # Keras and TensorFlow have no common base class
            raise ModelError(f"model.path: Keras fails on {self.path}: {one_line(error)}") from error
        return {entry["name"]: np.asarray(result) for entry, result in zip(self.outputs, results, strict=True)}


def _describe(name: str, tensor: Any) -> dict[str, Any]:
    return {"name": name, "shape": [*tensor.shape], "dtype": str(tensor.dtype)}


def pack_inputs(model: Any, arrays: Sequence[Any]) -> Any:
    """Arrays in the order of model.inputs in the structure that the model takes."""
    import keras

    structure = getattr(model, "input", model.inputs)  # a Sequential has none until it is called
    return arrays[0] if len(arrays) == 1 and not isinstance(structure, dict) else keras.tree.pack_sequence_as(structure, list(arrays))


def name_outputs(model: Any) -> list[str]:
    """Names of the outputs in the order of model.outputs, each once: the keys where it gives a dict, else the layers that they are of."""
    import keras

    paths = [path for path, _ in keras.tree.flatten_with_path(getattr(model, "output", model.outputs))]
    named = [".".join(map(str, path)) for path in paths] if any(isinstance(part, str) for path in paths for part in path) else []
    names = named or list(getattr(model, "output_names", ())) or [tensor.name for tensor in model.outputs]
    return names if len(set(names)) == len(names) else [f"{name}_{place}" for place, name in enumerate(names)]


def check_state(path: Path, model: Any) -> None:
    """ModelError for layers that keep their state from call to call: a converted file could not be set back to the start of a sample."""
    kept = [layer.name for layer in _layers(model) if getattr(layer, "stateful", False)]
    if kept:
        raise ModelError(
            f"model.path: {path}: stateful layers keep their state from call to call ({', '.join(kept)}); save it with stateful=False,"
            " or with its state as inputs and outputs, and name them in model.state={IN: OUT}"
        )


def load(path: Path) -> Any:
    """The model. ModelError if the file cannot be loaded, or would run code (Lambda layers)."""
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ModelError(
            f"model.path: {path} is not a file that ends in {', '.join(SUFFIXES)}, nor a SavedModel;"
            " save the model with model.save('model.keras')"
        )
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(
            f"model.path: {path} is not a Keras file (a zip archive): empty, truncated, or of another format under this name; save it"
            " again with model.save('model.keras')"
        )
    keras = import_keras()
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras has no common exception for damaged or foreign files
        raise ModelError(f"model.path: Keras {keras.__version__} cannot load {path}: {one_line(error)}") from error
    if not getattr(model, "inputs", None):
        raise ModelError(f"model.path: {path} has no inputs of fixed rank; call the model once on a sample before model.save")
    return model


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
    """The default signature as a plugins.Session, its inputs and outputs sorted by name."""

    def __init__(self, loaded: Any):
        self.loaded = loaded  # keeps the variables alive
        self.signature = loaded.signatures[SIGNATURE]
        self.specs = dict(sorted(self.signature.structured_input_signature[1].items()))
        self.inputs = [_describe_spec(name, spec) for name, spec in self.specs.items()]
        self.outputs = [_describe_spec(name, spec) for name, spec in sorted(self.signature.structured_outputs.items())]
        self.kernels: dict[str, tuple[str, np.ndarray]] = {}
        self.parameters = sum(int(np.prod(variable.shape)) for variable in self.signature.variables)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        try:
            results = self.signature(**{name: tf.constant(feeds[name], spec.dtype) for name, spec in self.specs.items()})
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise ModelError(f"model.path: TensorFlow fails on the SavedModel: {one_line(error)}") from error
        return {entry["name"]: np.asarray(results[entry["name"]]) for entry in self.outputs}


def _describe_spec(name: str, spec: Any) -> dict[str, Any]:
    return {"name": name, "shape": spec.shape.as_list(), "dtype": spec.dtype.name}


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
    network, layers = Network(model, path), list(_layers(model))
    return Inspection(
        kind=f"Keras model, {path.suffix} file, {len(layers)} layers",
        inputs=tuple(map(_port, network.inputs)),
        outputs=tuple(map(_port, network.outputs)),
        operators=Counter(type(layer).__name__ for layer in layers),
        parameters=network.parameters,
        multiply_adds=total([_multiply_adds(layer) for layer in layers]),
        model={"name": "keras_file", "path": str(path)},
    )


def _inspect_saved_model(path: Path) -> Inspection:
    model = load_saved_model(path, import_keras)
    functions = model.signature.graph.as_graph_def().library.function
    operators = Counter(node.op for function in functions for node in function.node_def)
    return Inspection(
        kind=f"TensorFlow SavedModel, signature {SIGNATURE}",
        inputs=tuple(map(_port, model.inputs)),
        outputs=tuple(map(_port, model.outputs)),
        operators=operators,
        parameters=model.parameters,
        notes=("for its multiply-adds, inspect the converted file, models/tflite/model.tflite, after a run",),
        model={"name": "keras_file", "path": str(path)},
    )


def _port(entry: Mapping[str, Any]) -> Port:
    return Port(entry["name"], tuple(entry["shape"]), entry["dtype"])


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


def find_precision(model: Any) -> str | None:
    """float16 or bfloat16, if a layer with weights computes in it; None for any other model."""
    names = (layer.dtype_policy.name for layer in _iterate_layers(model) if layer.weights)
    return next((POLICIES[name] for name in names if name in POLICIES), None)


def widen(model: Any) -> Any:
    """The same model, with layers that compute in float32."""
    import keras

    wide = keras.saving.deserialize_keras_object(_replace(keras.saving.serialize_keras_object(model)))
    wide.set_weights(model.get_weights())
    return wide


def _iterate_layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _iterate_layers(layer)


def _replace(config: Any) -> Any:
    """The configuration with float32 in the place of each mixed policy."""
    if isinstance(config, dict):
        return {key: _replace(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_replace(value) for value in config)
    return WIDE if isinstance(config, str) and config in POLICIES else config
