"""Which node of OpenVINO's graph computes which layer of a source that it read itself: found by the weights.

A batch norm folded into a convolution scales each output channel by a number of its own, so rows (one an output channel) are
compared by their direction alone, either sign. Where several layers have equal weights, the order of execution decides.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.openvino import saved
from edgewise.formats.openvino.facts import constant, weights

LEAST_COSINE = 0.999


def match(layers: Mapping[str, Mapping[str, Any]], values: Mapping[str, np.ndarray], model: Any) -> dict[str, list[Any]]:
    """Nodes of each layer path, in the order of execution. layers: {path: {"type", "weight", "shape"}}; values: weights by those names,
    in torch's layout. ValueError names a layer that is in no node."""
    nodes = [node for node in model.get_ordered_ops() if weights(node)]
    rows = [_node_rows(node) for node in nodes]
    sharing: dict[tuple[int, ...], list[str]] = {}
    for path, layer in layers.items():
        same = _same_table if layer["type"] == "Embedding" else _same_directions
        wanted = _layer_rows(layer["type"], values[layer["weight"]])
        found = tuple(i for i, candidates in enumerate(rows) if any(same(wanted, candidate) for candidate in candidates))
        if not found:
            raise ValueError(f"layer '{path}' ({layer['type']}) is in no node of OpenVINO's graph: keep_float could not reach it")
        sharing.setdefault(found, []).append(path)
    return {path: [nodes[i] for i in mine] for found, paths in sharing.items() for path, mine in _share(paths, found).items()}


def _share(paths: list[str], found: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Layers with equal weights get their nodes in order; the last of them those that are left."""
    final = len(found) - 1
    shared = {path: (found[min(i, final)],) for i, path in enumerate(paths[:-1])}
    return {**shared, paths[-1]: found[min(len(paths) - 1, final) :]}


def _layer_rows(kind: str, weight: np.ndarray) -> np.ndarray:
    """[output channels, the rest], in torch's order."""
    weight = np.swapaxes(weight, 0, 1) if kind.startswith("ConvTranspose") else weight
    return weight.reshape(len(weight), -1)


def _node_rows(node: Any) -> list[np.ndarray]:
    """The layouts in which a node's largest constant may hold a layer's rows."""
    origins = (constant(value.get_node()) for value in node.input_values())
    held = max((origin.get_data() for origin in origins if origin is not None), key=lambda array: array.size)
    kind = node.get_type_name()
    if kind == "ConvolutionBackpropData":
        held = np.swapaxes(held, 0, 1)
    if kind.startswith("Group"):  # [groups, outputs of each, ...]
        held = held.reshape(-1, *held.shape[2:])
    return [held, held.T] if held.ndim == 2 else [held.reshape(len(held), -1)] if held.ndim else []


def _same_directions(layer: np.ndarray, node: np.ndarray) -> bool:
    """Every row of the node is a multiple of the layer's; a row of zeros (a dead channel) is a multiple of any."""
    if layer.shape != node.shape:
        return False
    lengths = np.linalg.norm(layer, axis=1) * np.linalg.norm(node, axis=1)
    return bool(np.all(np.abs(np.einsum("ij,ij->i", layer, node)) >= LEAST_COSINE * lengths))


def _same_table(layer: np.ndarray, node: np.ndarray) -> bool:
    return layer.shape == node.shape and np.array_equal(layer, node)


# Sources that OpenVINO reads itself: a Keras model, as a SavedModel, and a float TFLite file.
#
# Names in such graphs count what a process made, so nodes with weights are named anew: after the layer whose weights they hold, where
# the source has layers (see matching), else after the tensor that they or the steps behind them give, as the file calls it.

FLOATS = ("f16", "f32", "f64")


def read(source: Path) -> tuple[Any, dict[str, list[str]]]:
    """The model with the names of the source, and the nodes of each of its layers. source: models/source of a format in READERS.
    ValueError where OpenVINO cannot read it, or it is quantized already."""
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    model = READERS[manifest["format"]](source / manifest["details"]["file"], manifest)
    _check_float(model)
    layers = manifest["details"]["layers"]
    found = match(layers, _weights(source), model) if layers else _by_tensors(model)  # before the ports lose their names
    for ports, side in ((model.inputs, "inputs"), (model.outputs, "outputs")):
        if len(ports) != len(manifest[side]):
            raise ValueError(f"OpenVINO sees {len(ports)} {side} in the source, which has {len(manifest[side])}")
        for port, entry in zip(ports, manifest[side], strict=True):
            port.get_tensor().set_names({entry["name"]})
    return model, _name(model, found)


def from_keras(path: Path, manifest: Mapping[str, Any]) -> Any:
    """The inputs come in the order of their names, as `saved` writes them and as the importer takes those of a SavedModel."""
    with tempfile.TemporaryDirectory() as place:
        model = _converted(path if path.is_dir() else saved.write(path, Path(place, "saved")))
    ordered = sorted(model.get_parameters(), key=lambda node: min(node.output(0).get_names()))
    return _reordered(model, ordered)


def from_tflite(path: Path, manifest: Mapping[str, Any]) -> Any:
    return _converted(path)


READERS = {"keras": from_keras, "tflite": from_tflite}


def _converted(path: Path) -> Any:
    import openvino

    try:
        return openvino.convert_model(path)
    except Exception as error:  # OpenVINO's frontends have no other class in common
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"OpenVINO cannot read the source: {' '.join(lines[-2:])[:300]}") from error


def _reordered(model: Any, parameters: list[Any]) -> Any:
    import openvino

    return openvino.Model(model.get_results(), parameters, model.get_friendly_name())


def _check_float(model: Any) -> None:
    """8-bit weights, or steps that round to levels: OpenVINO would compute something else than the file's own runtime does."""
    origins = (constant(value.get_node()) for node in model.get_ordered_ops() if weights(node) for value in node.input_values())
    stored = {origin.get_element_type().get_type_name() for origin in origins if origin is not None and len(origin.get_output_shape(0)) > 1}
    if stored - {*FLOATS} or any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
        raise ValueError("the file is quantized already: OpenVINO would round it in another way; measure it as it is, with tflite")


def _by_tensors(model: Any) -> dict[str, list[Any]]:
    """Each node with weights under the name of the first named tensor from it on; under its place where there is none before the next
    node with weights, whose name it would be."""
    found: dict[str, list[Any]] = {}
    for place, node in enumerate(model.get_ordered_ops()):
        if weights(node):
            found.setdefault(_tensor(node) or f"{node.get_type_name()}@{place}", []).append(node)
    return found


def _tensor(node: Any) -> str | None:
    while node is not None and node.get_type_name() != "Result":
        names: set[str] = node.output(0).get_names()
        if names:
            return min(names)
        users = [port.get_node() for port in node.output(0).get_target_inputs()]
        node = users[0] if len(users) == 1 and node.get_output_size() == 1 and not weights(users[0]) else None
    return None


def _name(model: Any, found: Mapping[str, list[Any]]) -> dict[str, list[str]]:
    """Name the nodes of each layer, and nothing else by these names. Returns layer -> names."""
    named = {layer: [f"{layer}#{n}" if n > 1 else layer for n in range(1, len(nodes) + 1)] for layer, nodes in found.items()}
    pairs = ((node, name) for layer, nodes in found.items() for node, name in zip(nodes, named[layer], strict=True))
    held = {node.get_friendly_name(): name for node, name in pairs}
    taken = set(held.values())
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if name in held and weights(node):
            node.set_friendly_name(held[name])
        elif name in taken:
            node.set_friendly_name(f"{name}/{node.get_type_name()}")
    return named


def _weights(source: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(source / "weights.safetensors")
