"""What a Keras model expects and is: a file, layer by layer, or a SavedModel, by its graph."""

from collections import Counter
from pathlib import Path
from typing import Any

from stages.core.inspection import Inspection, Port, product, total
from stages.importers import keras_file, saved_model


def look(path: Path) -> Inspection:
    return _saved(path) if path.is_dir() else _file(path)


def _file(path: Path) -> Inspection:
    model = keras_file.load(path)
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


def _saved(path: Path) -> Inspection:
    model = saved_model.load(path, keras_file.import_keras)
    functions = model.signature.graph.as_graph_def().library.function
    operators = Counter(node.op for function in functions for node in function.node_def)
    specs = [(name, spec) for name, spec in (*model.specs.items(), *model.signature.structured_outputs.items())]
    ports = [Port(name, tuple(spec.shape.as_list()), spec.dtype.name) for name, spec in specs]
    return Inspection(
        kind=f"TensorFlow SavedModel, signature {saved_model.SIGNATURE}",
        inputs=tuple(ports[: len(model.specs)]),
        outputs=tuple(ports[len(model.specs) :]),
        operators=operators,
        parameters=model.parameters,
        notes=("its multiply-adds are those of the converted file: inspect models/tflite/model.tflite after the run",),
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
